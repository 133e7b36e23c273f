// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Semaphore } from "#async";
import { errorMessage, isAbort } from "#errors";
import { type ByteRange, type RangeRequest, resolveRange } from "#http";
import type { Logger } from "#log";
import type { Peer, Router } from "#routing";
import type { ContentStore } from "#store";
import { type PeerPool, sendContent } from "#transfer";
import type { BlobDoubts } from "./blob-doubts.ts";
import { MirrorError } from "./errors.ts";
import { type Fetched, fetchFromPeer, type PeerRequestOptions } from "./fetch-from-peer.ts";
import type { Filters } from "./filters.ts";
import { findPeers } from "./find-peers.ts";
import type { MirrorMetrics } from "./metrics.ts";
import { type Local, openLocal } from "./open-local.ts";
import { type Pull, parsePull } from "./parse-pull.ts";
import type { PeerHealth } from "./peer-health.ts";
import { type NobodyFound, type RaceOptions, raceFetch } from "./race-fetch.ts";
import { type Relayed, relay } from "./relay.ts";
import type { RelayFloor } from "./relay-floor.ts";
import { respondEmpty, respondUnknown, writeContentHead } from "./respond.ts";
import { verifyPeer } from "./verify-peer.ts";

/** What answering pulls needs. */
export interface MirrorDeps {
  readonly store: ContentStore;
  readonly router: Router;
  readonly filters: Filters;
  readonly health: PeerHealth;
  readonly metrics: MirrorMetrics;
  readonly pool: PeerPool;
  readonly doubts: BlobDoubts;
  readonly floor: RelayFloor;
  /** How many doubted blobs are read through at the same time. */
  readonly verifySlots: Semaphore;
  readonly log: Logger;
}

export interface MirrorOptions extends RaceOptions {
  readonly registryPort: number;
  /** How many peers a look-up asks for (`--mirror-resolve-retries`). */
  readonly lookupCount: number;
  readonly stallTimeoutMs: number;
  /** How long a peer may take to show that it has the right bytes of a doubted blob. */
  readonly verifyTimeoutMs: number;
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
/** How long another peer is waited for in the middle of a body: giving up there costs more than at the start. */
const RESUME_RESOLVE_TIMEOUT_MS = 300;
/** Peers that one request has read through; each may take `verifyTimeoutMs`. */
const MAX_VERIFIED_PEERS = 3;

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

  noteAsked(deps, asked);
  const source = await fetchTrusted(deps, options, asked, asked.range, signal);
  if (!("response" in source)) {
    deps.metrics.mirrored(asked.registry, false);
    return unknown(response, asked, source.message, { attempts: source.attempts });
  }
  const sent = await sendFromPeers(deps, options, asked, source, response, signal);
  noteRelayed(deps, asked, source, sent);
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

/** See `BlobDoubts`. Parts that are asked for side by side begin in the middle: they say nothing. */
function noteAsked(deps: MirrorDeps, asked: Pull): void {
  if (asked.kind !== "blob" || asked.method !== "GET" || asked.digest === undefined) return;
  const { range } = asked;
  if (range !== undefined && (range.kind === "suffix" || range.start > 0)) return;
  if (deps.doubts.doubted(asked.digest) || !deps.doubts.asked(asked.digest)) return;
  deps.log.warn("A blob is asked for again after it was relayed in full: its peers must prove themselves.", {
    digest: asked.digest,
  });
}

function noteRelayed(deps: MirrorDeps, asked: Pull, source: Fetched, sent: Relayed): void {
  // What was verified whole cannot have been wrong.
  if (asked.kind !== "blob" || asked.method !== "GET" || source.body !== undefined) return;
  const reachedEnd = source.range === undefined || source.range.end === source.sizeBytes - 1;
  if (sent.complete && reachedEnd) deps.doubts.relayed(source.digest);
}

/** A peer with the content; for a doubted blob one that has shown that its bytes are right. */
async function fetchTrusted(
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
    return await ask(range);
  } catch (error) {
    signal.throwIfAborted();
    reportFailure(deps, peer, asked, error);
    return undefined;
  }
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
    usable: (peer) =>
      deps.health.usable(peer.id) &&
      (asked.digest === undefined || deps.doubts.verdict(asked.digest, peer.id) !== "wrong"),
    ...(lastResort === undefined ? {} : { lastResort }),
    onFailure: (error) => deps.log.warn("A look-up failed.", { key: asked.key, err: error }),
  });
  const request = requestOptions(deps, options, signal);
  return await raceFetch(asked, range, candidates, request, options, (peer, error) =>
    reportFailure(deps, peer, asked, error),
  );
}

function requestOptions(deps: MirrorDeps, options: MirrorOptions, signal: AbortSignal): PeerRequestOptions {
  return {
    registryPort: options.registryPort,
    pool: deps.pool,
    signal,
    ...(options.authorization === undefined ? {} : { authorization: options.authorization }),
  };
}

function reportFailure(deps: MirrorDeps, peer: Peer, asked: Pull, error: unknown): void {
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
  using _relay = deps.floor.enter();
  const resolveTimeoutMs = Math.max(options.resolveTimeoutMs, RESUME_RESOLVE_TIMEOUT_MS);
  return await relay(
    response,
    source,
    {
      // The rest is always asked for by digest: a tag may have moved in between.
      resume: (rest, lost) =>
        fetchTrusted(
          deps,
          { ...options, resolveTimeoutMs },
          byDigest(asked, digest),
          rest,
          signal,
          lost.peer.id,
        ),
      onSourceLost(lost, ended, moved) {
        deps.metrics.sourceLost(ended);
        // A connection that broke after it had moved may be tried again; a silent or slow one wasted time already.
        if (ended === "source-stalled" || ended === "source-slow" || !moved) deps.health.avoid(lost.peer.id);
        deps.log.debug("A peer was lost in the middle of a body.", {
          peer: lost.peer.id,
          key: asked.key,
          reason: ended,
        });
      },
    },
    {
      stallTimeoutMs: options.stallTimeoutMs,
      leastBytesPerSecond: deps.floor.leastBytesPerSecond,
      maxIdleResumes: MAX_IDLE_RESUMES,
      maxResumes: MAX_RESUMES,
      signal,
    },
  );
}

function byDigest(asked: Pull, digest: Fetched["digest"]): Pull {
  return { ...asked, digest, tag: undefined, key: digest, kind: asked.kind };
}
