// SPDX-License-Identifier: Apache-2.0

/** Remembers which peers were in trouble a moment ago. Bounded; the oldest entries go first. */
export interface PeerHealth {
  /**
   * Keeps the peer out of look-ups for a while, for twice as long if it was kept out shortly before. A look-up record
   * outlives its node by up to 19 minutes.
   */
  avoid(peerId: string): void;
  usable(peerId: string): boolean;
}

const DEFAULT_MAX_AVOID_MS = 60_000;

export function createPeerHealth(options: {
  /** How long a peer is left out for its first offence. */
  readonly avoidMs: number;
  /** How long it is left out at most; default 60 s. */
  readonly maxAvoidMs?: number;
  readonly limit: number;
  readonly now: () => number;
}): PeerHealth {
  const maxAvoidMs = options.maxAvoidMs ?? DEFAULT_MAX_AVOID_MS;
  const entries = new Map<string, { readonly until: number; readonly lastedMs: number }>();
  return {
    avoid(peerId) {
      const now = options.now();
      const known = entries.get(peerId);
      // Requests that run at the same time meet the same trouble: that is one offence.
      if (known !== undefined && known.until > now) return;
      const isRepeated = known !== undefined && now - known.until < known.lastedMs;
      const lastedMs = isRepeated ? Math.min(maxAvoidMs, known.lastedMs * 2) : options.avoidMs;
      entries.delete(peerId);
      entries.set(peerId, { until: now + lastedMs, lastedMs });
      if (entries.size > options.limit) entries.delete(entries.keys().next().value as string);
    },
    usable: (peerId) => (entries.get(peerId)?.until ?? 0) <= options.now(),
  };
}
