// SPDX-License-Identifier: Apache-2.0
import type { Digest } from "#oci";

/**
 * Blobs whose bytes may have been wrong. containerd asks once for a blob that it could commit: one that is asked for
 * again soon after it was relayed in full probably did not hash to its digest.
 *
 * While a blob is doubted, a peer must have shown once that it has the right bytes before it may deliver them.
 */
export interface BlobDoubts {
  /** The end of the blob was relayed, from these peers; everything before it had been sent too. */
  relayed(digest: Digest, peerIds: readonly string[]): void;
  /** The blob is asked for from its first byte. True when it is doubted from now on. */
  asked(digest: Digest): boolean;
  doubted(digest: Digest): boolean;
  /** Whether the peer delivered to a relay of a doubted blob and has not proven itself since. Asked last. */
  suspected(digest: Digest, peerId: string): boolean;
  /** What reading the blob from that peer showed. */
  judge(digest: Digest, peerId: string, verdict: Verdict): void;
  verdict(digest: Digest, peerId: string): Verdict | undefined;
}

export type Verdict = "right" | "wrong";

export interface BlobDoubtsOptions {
  /** How long a relay, a doubt and a verdict are remembered; longer than the kubelet waits between two pulls (5 min). */
  readonly rememberMs: number;
  /** How many blobs, and how many verdicts, are remembered; the oldest go first. */
  readonly limit: number;
  readonly now: () => number;
}

// One relay may have had up to 100 sources.
const MAX_SUSPECTS = 8;

export function createBlobDoubts(options: BlobDoubtsOptions): BlobDoubts {
  const relays = createMemory<readonly string[]>(options);
  const doubts = createMemory<true>(options);
  const verdicts = createMemory<Verdict>(options);
  return {
    relayed(digest, peerIds) {
      const all = new Set([...(relays.get(digest) ?? []), ...peerIds]);
      relays.set(digest, [...all].slice(-MAX_SUSPECTS));
    },
    asked(digest) {
      if (relays.get(digest) !== undefined) doubts.set(digest, true);
      return doubts.get(digest) !== undefined;
    },
    doubted: (digest) => doubts.get(digest) !== undefined,
    suspected: (digest, peerId) =>
      doubts.get(digest) !== undefined &&
      (relays.get(digest)?.includes(peerId) ?? false) &&
      verdicts.get(`${digest} ${peerId}`) !== "right",
    judge: (digest, peerId, verdict) => verdicts.set(`${digest} ${peerId}`, verdict),
    verdict: (digest, peerId) => verdicts.get(`${digest} ${peerId}`),
  };
}

function createMemory<Value>({ rememberMs, limit, now }: BlobDoubtsOptions) {
  const entries = new Map<string, { readonly value: Value; readonly until: number }>();
  return {
    set(key: string, value: Value): void {
      entries.delete(key);
      entries.set(key, { value, until: now() + rememberMs });
      if (entries.size > limit) entries.delete(entries.keys().next().value as string);
    },
    get(key: string): Value | undefined {
      const entry = entries.get(key);
      if (entry === undefined || entry.until > now()) return entry?.value;
      entries.delete(key);
      return undefined;
    },
  };
}
