// SPDX-License-Identifier: Apache-2.0
import type { ByteRange, RangeRequest } from "#http";
import { type Fetched, fetchFromPeer } from "./fetch-from-peer.ts";
import { fetchFromPeers, reportFailure, requestOptions } from "./fetch-from-peers.ts";
import type { MirrorDeps, MirrorOptions } from "./mirror.ts";
import type { Pull } from "./parse-pull.ts";
import type { NobodyFound } from "./race-fetch.ts";
import type { Relayed } from "./relay.ts";
import { verifyPeer } from "./verify-peer.ts";

/** Peers that one request has read through; each may take `verifyTimeoutMs`. */
const MAX_VERIFIED_PEERS = 3;

/** See `BlobDoubts`. Parts that are asked for side by side begin in the middle: they say nothing. */
export function noteAsked(deps: MirrorDeps, asked: Pull): void {
  if (asked.kind !== "blob" || asked.method !== "GET" || asked.digest === undefined) return;
  const { range } = asked;
  if (range !== undefined && (range.kind === "suffix" || range.start > 0)) return;
  if (deps.doubts.doubted(asked.digest) || !deps.doubts.asked(asked.digest)) return;
  deps.log.warn("A blob is asked for again after it was relayed in full: its peers must prove themselves.", {
    digest: asked.digest,
  });
}

/** Remembers a blob that was relayed to its end. */
export function noteRelayed(deps: MirrorDeps, asked: Pull, source: Fetched, sent: Relayed): void {
  // What was verified whole cannot have been wrong.
  if (asked.kind !== "blob" || asked.method !== "GET" || source.body !== undefined) return;
  const reachedEnd = source.range === undefined || source.range.end === source.sizeBytes - 1;
  if (sent.complete && reachedEnd) deps.doubts.relayed(source.digest, sent.peers);
}

/** A peer with the content; for a doubted blob one that has shown that its bytes are right. */
export async function fetchTrusted(
  deps: MirrorDeps,
  options: MirrorOptions,
  asked: Pull,
  range: RangeRequest | ByteRange | undefined,
  signal: AbortSignal,
  lastResort?: string,
): Promise<Fetched | NobodyFound> {
  for (let attempt = 1; ; attempt++) {
    const found = await fetchFromPeers(deps, options, asked, range, signal, lastResort);
    const isDoubted =
      "response" in found &&
      asked.kind === "blob" &&
      asked.method === "GET" &&
      found.body === undefined &&
      deps.doubts.doubted(found.digest) &&
      deps.doubts.verdict(found.digest, found.peer.id) !== "right";
    if (!isDoubted) return found;
    const proven = await prove(deps, options, asked, found, range, signal);
    if (proven !== undefined) return proven;
    if (attempt === MAX_VERIFIED_PEERS)
      return { attempts: attempt, message: `no peer has shown that it has ${found.digest}` };
  }
}

/** Lets a peer show its bytes; asks it once more for the range when they are right. */
async function prove(
  deps: MirrorDeps,
  options: MirrorOptions,
  asked: Pull,
  found: Fetched,
  range: RangeRequest | ByteRange | undefined,
  signal: AbortSignal,
): Promise<Fetched | undefined> {
  const { peer, digest } = found;
  const ask = (part: RangeRequest | ByteRange | undefined): Promise<Fetched> =>
    fetchFromPeer(peer, asked, part, {
      ...requestOptions(
        deps,
        options,
        AbortSignal.any([signal, AbortSignal.timeout(options.answerTimeoutMs)]),
      ),
    });
  try {
    {
      await using response = found.response;
      await using whole = range === undefined ? undefined : (await ask(undefined)).response;
      const isRight = await verifyPeer(whole ?? response, digest, {
        limitMs: options.verifyTimeoutMs,
        stallTimeoutMs: options.stallTimeoutMs,
        slots: deps.verifySlots,
        signal,
      });
      deps.doubts.judge(digest, peer.id, isRight ? "right" : "wrong");
      if (!isRight) {
        deps.metrics.peerFailed("PEER_DIGEST_MISMATCH");
        deps.log.warn("A peer has other bytes than the digest says.", { peer: peer.id, digest });
        return undefined;
      }
    }
    // It has the right bytes: that it did not answer at once is no reason to look elsewhere.
    return await ask(range).catch(() => ask(range));
  } catch (error) {
    signal.throwIfAborted();
    reportFailure(deps, peer, asked, error);
    return undefined;
  }
}
