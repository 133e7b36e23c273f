// SPDX-License-Identifier: Apache-2.0
import { errorMessage, isAbort } from "#errors";
import type { ByteRange, RangeRequest } from "#http";
import type { Peer } from "#routing";
import { MirrorError } from "./errors.ts";
import type { Fetched, PeerRequestOptions } from "./fetch-from-peer.ts";
import { findPeers } from "./find-peers.ts";
import type { MirrorDeps, MirrorOptions } from "./mirror.ts";
import type { Pull } from "./parse-pull.ts";
import { type NobodyFound, raceFetch } from "./race-fetch.ts";

/** One search over the swarm: a look-up of its own, and a race over the peers it gives. */
export async function fetchFromPeers(
  deps: MirrorDeps,
  options: MirrorOptions,
  asked: Pull,
  range: RangeRequest | ByteRange | undefined,
  signal: AbortSignal,
  lastResort?: string,
): Promise<Fetched | NobodyFound> {
  await using candidates = findPeers(deps.router, asked.key, {
    count: options.lookupCount,
    signal,
    usable: (peer) =>
      deps.health.usable(peer.id) &&
      (asked.digest === undefined || deps.doubts.verdict(asked.digest, peer.id) !== "wrong"),
    lastResort: ({ id }) =>
      id === lastResort || (asked.digest !== undefined && deps.doubts.suspected(asked.digest, id)),
    onFailure: (error) => deps.log.warn("A look-up failed.", { key: asked.key, err: error }),
  });
  const request = requestOptions(deps, options, signal);
  return await raceFetch(asked, range, candidates, request, options, (peer, error) =>
    reportFailure(deps, peer, asked, error),
  );
}

/** How a peer is asked on this node. */
export function requestOptions(
  deps: MirrorDeps,
  options: MirrorOptions,
  signal: AbortSignal,
): PeerRequestOptions {
  return {
    registryPort: options.registryPort,
    pool: deps.pool,
    signal,
    ...(options.authorization === undefined ? {} : { authorization: options.authorization }),
  };
}

/** Counts an answer that could not be used, and leaves its peer out for a while if that is the peer's fault. */
export function reportFailure(deps: MirrorDeps, peer: Peer, asked: Pull, error: unknown): void {
  const reason =
    error instanceof MirrorError ? error.code : isAbort(error) ? "PEER_TIMEOUT" : "PEER_UNREACHABLE";
  // A peer that answers, but not with this content, is a healthy peer with an old record.
  if (reason !== "PEER_STATUS") deps.health.avoid(peer.id);
  if (reason === "PEER_DIGEST_MISMATCH" && asked.digest !== undefined)
    deps.doubts.judge(asked.digest, peer.id, "wrong");
  deps.metrics.peerFailed(reason);
  deps.log.debug("A peer could not be used.", {
    peer: peer.id,
    key: asked.key,
    reason,
    err: errorMessage(error),
  });
}
