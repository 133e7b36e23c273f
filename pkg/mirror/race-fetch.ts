// SPDX-License-Identifier: Apache-2.0
import type { ByteRange, RangeRequest } from "#http";
import type { Peer } from "#routing";
import { MirrorError } from "./errors.ts";
import { type Fetched, fetchFromPeer, type PeerRequestOptions } from "./fetch-from-peer.ts";
import type { Candidates } from "./find-peers.ts";
import type { Pull } from "./parse-pull.ts";

export interface RaceOptions {
  /** How long to wait for a peer while none is being asked (`--mirror-resolve-timeout`). */
  readonly resolveTimeoutMs: number;
  /** A further peer is asked when those before have not answered for this long. */
  readonly hedgeAfterMs: number;
  /** Silent peers are given up after this long. */
  readonly answerTimeoutMs: number;
  /** Peers asked at the same time. */
  readonly maxParallel: number;
}

/** Why nobody could be found; `message` and `attempts` are Spegel's, they go into the error body. */
export interface NobodyFound {
  readonly attempts: number;
  readonly message: string;
}

type Event =
  | { readonly kind: "fetched"; readonly attempt: Attempt; readonly fetched: Fetched }
  | { readonly kind: "failed"; readonly attempt: Attempt; readonly error: unknown }
  | { readonly kind: "candidates" }
  | { readonly kind: "time" };

interface Attempt {
  readonly peer: Peer;
  readonly abort: AbortController;
  readonly result: Promise<Event>;
}

/**
 * Asks peers one after the other, overlapping when they are slow, and gives the first good answer.
 *
 * The first peer is asked at once. Another is asked when one fails, or after `hedgeAfterMs` of silence. Losers are
 * cancelled. Peers are shared between requests without any exclusive hold, so that any number of concurrent
 * requests for one blob can be served by its only holder.
 */
export async function raceFetch(
  pull: Pull,
  range: RangeRequest | ByteRange | undefined,
  candidates: Candidates,
  request: PeerRequestOptions,
  options: RaceOptions,
  onFailure: (peer: Peer, error: unknown) => void,
): Promise<Fetched | NobodyFound> {
  const running = new Set<Attempt>();
  const startedAt = performance.now();
  let attempts = 0;
  let nextStartAt = startedAt;

  const nobody = (reason: string): NobodyFound => ({ attempts, message: `${reason} ${pull.key}` });

  function start(peer: Peer): void {
    attempts++;
    nextStartAt = performance.now() + options.hedgeAfterMs;
    const abort = new AbortController();
    const result = withDeadline(
      options.answerTimeoutMs,
      AbortSignal.any([request.signal, abort.signal]),
      (signal) => fetchFromPeer(peer, pull, range, { ...request, signal }),
    ).then(
      (fetched): Event => ({ kind: "fetched", attempt, fetched }),
      (error: unknown): Event => ({ kind: "failed", attempt, error }),
    );
    const attempt: Attempt = { peer, abort, result };
    running.add(attempt);
  }

  try {
    for (;;) {
      request.signal.throwIfAborted();
      const now = performance.now();
      if (running.size < options.maxParallel && (running.size === 0 || now >= nextStartAt)) {
        const peer = candidates.take();
        if (peer !== undefined) {
          start(peer);
          continue;
        }
        if (running.size === 0 && candidates.ended) {
          return nobody(attempts === 0 ? "could not find peer for" : "all request retries exhausted for");
        }
        nextStartAt = now; // as soon as one turns up
      }
      const event = await nextEvent(
        running,
        candidates,
        waitMs(running.size, now, nextStartAt, startedAt, options),
      );
      if (event.kind === "fetched") {
        running.delete(event.attempt);
        return event.fetched;
      }
      if (event.kind === "failed") {
        running.delete(event.attempt);
        nextStartAt = performance.now();
        if (!request.signal.aborted) onFailure(event.attempt.peer, event.error);
      } else if (event.kind === "time") {
        if (running.size === 0) return nobody("waited too long for new peer with no inflight fetches for");
        if (performance.now() - startedAt >= raceLimitMs(options)) {
          return nobody("waited too long for inflight dials to complete for");
        }
      }
    }
  } finally {
    for (const attempt of running) {
      attempt.abort.abort();
      void attempt.result.then((event) =>
        event.kind === "fetched" ? event.fetched.response[Symbol.asyncDispose]() : undefined,
      );
    }
  }
}

/** Runs `action` under a signal that aborts after `limitMs`, and no longer once it has settled: the body may take its time. */
async function withDeadline<T>(
  limitMs: number,
  outer: AbortSignal,
  action: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const inner = new AbortController();
  const onAbort = (): void => inner.abort(outer.reason);
  outer.addEventListener("abort", onAbort, { once: true });
  if (outer.aborted) onAbort();
  const timer = setTimeout(
    () =>
      inner.abort(
        new MirrorError({ code: "PEER_TIMEOUT", message: `peer did not answer within ${limitMs} ms` }),
      ),
    limitMs,
  );
  try {
    return await action(inner.signal);
  } finally {
    clearTimeout(timer);
    outer.removeEventListener("abort", onAbort);
  }
}

// One slow answer may be followed by one more; beyond that the client is better off upstream.
function raceLimitMs(options: RaceOptions): number {
  return options.answerTimeoutMs + options.hedgeAfterMs * options.maxParallel;
}

function waitMs(
  running: number,
  now: number,
  nextStartAt: number,
  startedAt: number,
  options: RaceOptions,
): number {
  if (running === 0) return options.resolveTimeoutMs;
  const untilLimit = startedAt + raceLimitMs(options) - now;
  const untilHedge = nextStartAt - now;
  return Math.max(
    1,
    running < options.maxParallel && untilHedge > 0 ? Math.min(untilHedge, untilLimit) : untilLimit,
  );
}

async function nextEvent(
  running: ReadonlySet<Attempt>,
  candidates: Candidates,
  timeoutMs: number,
): Promise<Event> {
  const time = Promise.withResolvers<Event>();
  const timer = setTimeout(() => time.resolve({ kind: "time" }), timeoutMs);
  try {
    return await Promise.race([
      ...[...running].map((attempt) => attempt.result),
      candidates.changed().then((): Event => ({ kind: "candidates" })),
      time.promise,
    ]);
  } finally {
    clearTimeout(timer);
  }
}
