// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import { errorMessage, isAbort } from "#errors";
import { type ByteRange, type RangeRequest, resolveRange } from "#http";
import type { Logger } from "#log";
import type { Peer, Router } from "#routing";
import type { ContentStore } from "#store";
import { type PeerPool, sendContent } from "#transfer";
import { MirrorError } from "./errors.ts";
import type { Fetched, PeerRequestOptions } from "./fetch-from-peer.ts";
import type { Filters } from "./filters.ts";
import { findPeers } from "./find-peers.ts";
import type { MirrorMetrics } from "./metrics.ts";
import { type Local, openLocal } from "./open-local.ts";
import { type Pull, parsePull } from "./parse-pull.ts";
import type { PeerHealth } from "./peer-health.ts";
import { type NobodyFound, type RaceOptions, raceFetch } from "./race-fetch.ts";
import { type Relayed, relay } from "./relay.ts";
import { respondEmpty, respondUnknown, writeContentHead } from "./respond.ts";

/** What answering pulls needs. */
export interface MirrorDeps {
  readonly store: ContentStore;
  readonly router: Router;
  readonly filters: Filters;
  readonly health: PeerHealth;
  readonly metrics: MirrorMetrics;
  readonly pool: PeerPool;
  readonly log: Logger;
}

export interface MirrorOptions extends RaceOptions {
  readonly registryPort: number;
  /** How many peers a look-up asks for (`--mirror-resolve-retries`). */
  readonly lookupCount: number;
  readonly stallTimeoutMs: number;
  /** Credentials for peers, when the nodes' registries are protected. */
  readonly authorization?: string;
}

/** What happened to one pull; becomes its log line. */
export interface PullRecord {
  readonly pull?: Pull;
  readonly source: "local" | "peer" | "none";
  readonly bytes: number;
  /** Peers that delivered bytes, in order. */
  readonly peers?: readonly string[];
  readonly resumes?: number;
  /** Why there was no content, or why it was cut. */
  readonly reason?: string;
}

const MAX_IDLE_RESUMES = 3;
const MAX_RESUMES = 100;

/**
 * Answers one pull: from local content, else from a peer, else 404 so that containerd goes upstream.
 *
 * `parsePull -> admit -> openLocal -> findPeers -> raceFetch -> relay (resume at byte n) -> record`.
 * A pull of another node leaves after `openLocal`. See docs/flows/pull.md.
 */
export async function pull(
  deps: MirrorDeps,
  options: MirrorOptions,
  request: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<PullRecord> {
  const asked = parsePull(request);
  if (asked === undefined) return refuse(response, "not a pull");
  if (!deps.filters.admitsName(asked)) return refuse(response, "filtered", asked);

  const local = await openLocalOrNone(deps, asked, signal);
  if (local.found) return sendLocal(asked, local, response, signal);
  if (asked.mirrored || local.present) return unknown(response, asked, local.reason);

  const source = await fetchFromPeers(deps, options, asked, asked.range, signal);
  if (!("response" in source)) {
    deps.metrics.mirrored(asked.registry, false);
    return unknown(response, asked, source.message, { attempts: source.attempts });
  }
  const sent = await sendFromPeers(deps, options, asked, source, response, signal);
  deps.metrics.mirrored(asked.registry, sent.complete);
  return {
    pull: asked,
    source: "peer",
    bytes: sent.bytes,
    peers: sent.peers,
    resumes: sent.resumes,
    ...(sent.complete ? {} : { reason: "cut" }),
  };
}

function refuse(response: ServerResponse, reason: string, asked?: Pull): PullRecord {
  respondEmpty(response, 404);
  return { source: "none", bytes: 0, reason, ...(asked === undefined ? {} : { pull: asked }) };
}

function unknown(
  response: ServerResponse,
  asked: Pull,
  reason: string,
  detail?: Readonly<Record<string, unknown>>,
): PullRecord {
  respondUnknown(response, asked, reason, detail);
  return { pull: asked, source: "none", bytes: 0, reason };
}

/** A store that cannot answer is a store that has nothing: peers and upstream still can. */
async function openLocalOrNone(deps: MirrorDeps, asked: Pull, signal: AbortSignal): Promise<Local> {
  try {
    return await openLocal(deps.store, asked, signal);
  } catch (error) {
    signal.throwIfAborted();
    deps.log.warn("The content store did not answer.", { store: deps.store.name, err: error });
    return { found: false, present: false, reason: `could not get ${asked.kind} ${asked.key}` };
  }
}

async function sendLocal(
  asked: Pull,
  local: Extract<Local, { found: true }>,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<PullRecord> {
  const { digest, mediaType, sizeBytes } = local.info;
  const range = asked.range === undefined ? undefined : resolveRange(asked.range, sizeBytes);
  if (asked.range !== undefined && range === undefined) {
    respondEmpty(response, 400);
    return { pull: asked, source: "none", bytes: 0, reason: "range not satisfiable" };
  }
  const head = {
    digest,
    mediaType,
    sizeBytes,
    namespace: asked.registry,
    ...(range === undefined ? {} : { range }),
  };
  if (asked.method === "HEAD" || sizeBytes === 0) {
    writeContentHead(response, asked, head);
    response.end();
    return { pull: asked, source: "local", bytes: 0 };
  }
  await using content = await local.open(signal);
  if (content === undefined)
    return unknown(response, asked, `could not get reader for ${asked.kind} ${digest}`);
  writeContentHead(response, asked, head);
  const outcome = await sendContent(content, range ?? { start: 0, end: sizeBytes - 1 }, response, { signal });
  return {
    pull: asked,
    source: "local",
    bytes: outcome.bytes,
    ...(outcome.ended === "complete" ? {} : { reason: outcome.ended }),
  };
}

/** One search over the swarm: a look-up of its own, and a race over the peers it gives. */
async function fetchFromPeers(
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
    usable: (peer) => deps.health.usable(peer.id),
    ...(lastResort === undefined ? {} : { lastResort }),
    onFailure: (error) => deps.log.warn("A look-up failed.", { key: asked.key, err: error }),
  });
  const request: PeerRequestOptions = {
    registryPort: options.registryPort,
    pool: deps.pool,
    signal,
    ...(options.authorization === undefined ? {} : { authorization: options.authorization }),
  };
  return await raceFetch(asked, range, candidates, request, options, (peer, error) =>
    reportFailure(deps, peer, asked, error),
  );
}

function reportFailure(deps: MirrorDeps, peer: Peer, asked: Pull, error: unknown): void {
  const reason =
    error instanceof MirrorError ? error.code : isAbort(error) ? "PEER_TIMEOUT" : "PEER_UNREACHABLE";
  // A peer that answers, but not with this content, is a healthy peer with an old record.
  if (reason !== "PEER_STATUS") deps.health.avoid(peer.id);
  deps.metrics.peerFailed(reason);
  deps.log.debug("A peer could not be used.", {
    peer: peer.id,
    key: asked.key,
    reason,
    err: errorMessage(error),
  });
}

async function sendFromPeers(
  deps: MirrorDeps,
  options: MirrorOptions,
  asked: Pull,
  source: Fetched,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<Relayed> {
  const { digest, mediaType, sizeBytes, range } = source;
  writeContentHead(response, asked, {
    digest,
    mediaType,
    sizeBytes,
    ...(range === undefined ? {} : { range }),
  });
  if (asked.method === "HEAD" || sizeBytes === 0) {
    await source.response[Symbol.asyncDispose]();
    response.end();
    return { bytes: 0, complete: true, resumes: 0, peers: [source.peer.id] };
  }
  return relay(
    response,
    source,
    {
      // The rest is always asked for by digest: a tag may have moved in between.
      resume: (rest, lost) =>
        fetchFromPeers(deps, options, byDigest(asked, digest), rest, signal, lost.peer.id),
      onSourceLost(lost, ended, moved) {
        deps.metrics.sourceLost(ended);
        // A connection that broke after it had moved may be tried again; a silent one wasted a second already.
        if (ended === "source-stalled" || !moved) deps.health.avoid(lost.peer.id);
        deps.log.debug("A peer was lost in the middle of a body.", {
          peer: lost.peer.id,
          key: asked.key,
          reason: ended,
        });
      },
    },
    {
      stallTimeoutMs: options.stallTimeoutMs,
      maxIdleResumes: MAX_IDLE_RESUMES,
      maxResumes: MAX_RESUMES,
      signal,
    },
  );
}

function byDigest(asked: Pull, digest: Fetched["digest"]): Pull {
  return { ...asked, digest, tag: undefined, key: digest, kind: asked.kind };
}
