// SPDX-License-Identifier: Apache-2.0
import { createBackoff, sleep } from "#async";
import type { Logger } from "#log";
import type { BootstrapPeer, BootstrapSource } from "./source.ts";

export interface JoinDeps {
  readonly logger: Logger;
  readonly sources: readonly BootstrapSource[];
  /** Connects to a node and waits until it is in the routing table; rejects when that fails. */
  readonly connect: (peer: BootstrapPeer, options: { readonly signal: AbortSignal }) => Promise<void>;
  /** Whether an entry is this node itself. */
  readonly isSelf: (peer: BootstrapPeer) => boolean;
  /** Nodes in the routing table; 0 while this node is isolated. */
  readonly peerCount: () => number;
  /** Resolves when the table holds fewer nodes than that, or the signal aborts. */
  readonly untilFewer: (than: number, options: { readonly signal: AbortSignal }) => Promise<void>;
  /** Called after each attempt that reached somebody. */
  readonly onJoined: () => void;
  readonly random?: () => number;
}

export interface JoinOptions {
  /** First and longest wait while isolated. Default 50 ms and 10 s. */
  readonly retryInitialMs?: number;
  readonly retryMaxMs?: number;
  /** Longest time between attempts while connected; chance takes up to half of it away. Default 5 min. */
  readonly intervalMs?: number;
  /** One attempt, all sources and dials together. Default 30 s. */
  readonly attemptTimeoutMs?: number;
}

export interface Joining {
  /** True when all sources have answered, the last time that they did, and named nobody but this node: it is the first one. */
  readonly isAlone: boolean;
  /** Runs until the signal aborts. */
  run(options: { readonly signal: AbortSignal }): Promise<void>;
}

const RETRY_INITIAL_MS = 50;
const RETRY_MAX_MS = 10_000;
/** Spegel waits 30 min; so long would the halves of a split cluster stay apart. */
const INTERVAL_MS = 5 * 60_000;
/** A node that has less than this part of its peers left may be cut off from the others: it asks again sooner. */
const SHRUNK = 0.75;
const ATTEMPT_TIMEOUT_MS = 30_000;

/** Finds the first other nodes, again and again while there are none, and now and then afterwards to mend a split swarm. */
export function createJoining(deps: JoinDeps, options: JoinOptions = {}): Joining {
  const backoff = createBackoff({
    initialMs: options.retryInitialMs ?? RETRY_INITIAL_MS,
    maxMs: options.retryMaxMs ?? RETRY_MAX_MS,
    ...(deps.random === undefined ? {} : { random: deps.random }),
  });
  const intervalMs = options.intervalMs ?? INTERVAL_MS;
  const soonMs = options.retryMaxMs ?? RETRY_MAX_MS;
  const random = deps.random ?? Math.random;
  const attemptTimeoutMs = options.attemptTimeoutMs ?? ATTEMPT_TIMEOUT_MS;
  let isAlone = false;

  const isIsolated = (): boolean => deps.peerCount() === 0;

  async function attempt(signal: AbortSignal): Promise<void> {
    const answers = await Promise.allSettled(deps.sources.map((source) => source.peers({ signal })));
    answers.forEach((answer, i) => {
      if (answer.status === "rejected" && !signal.aborted)
        deps.logger.warn("bootstrap source failed", { source: deps.sources[i]?.name, err: answer.reason });
    });
    const others = answers
      .flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []))
      .filter((peer) => !deps.isSelf(peer));
    if (others.length > 0) isAlone = false;
    else if (answers.every((answer) => answer.status === "fulfilled")) isAlone = true;
    const dials = await Promise.allSettled(others.map((peer) => deps.connect(peer, { signal })));
    const reached = dials.filter((dial) => dial.status === "fulfilled").length;
    dials.forEach((dial, i) => {
      if (dial.status === "rejected")
        deps.logger.debug("bootstrap peer not reached", {
          addresses: others[i]?.addresses,
          err: dial.reason,
        });
    });
    if (reached > 0) deps.onJoined();
    else if (others.length > 0 && isIsolated())
      deps.logger.warn("no bootstrap peer was reached", { tried: others.length });
  }

  return {
    get isAlone() {
      return isAlone;
    },
    async run({ signal }) {
      let waitMs = intervalMs;
      let usualPeers = 0;
      while (!signal.aborted) {
        try {
          await attempt(AbortSignal.any([signal, AbortSignal.timeout(attemptTimeoutMs)]));
          if (isIsolated()) {
            await sleep(backoff.next(), { signal });
            continue;
          }
          backoff.reset();
          const hasShrunk = deps.peerCount() < usualPeers * SHRUNK;
          waitMs = hasShrunk ? Math.min(waitMs * 2, intervalMs) : intervalMs;
          if (waitMs === intervalMs) usualPeers = deps.peerCount(); // all back, or gone for good
          const isFew = await waitOrShrink(waitMs, hasShrunk ? 1 : Math.max(usualPeers * SHRUNK, 1), signal);
          if (isFew && !isIsolated()) {
            waitMs = Math.min(soonMs, intervalMs);
            await waitOrShrink(waitMs, 1, signal);
          }
        } catch (err) {
          if (signal.aborted) return;
          deps.logger.error("bootstrap attempt failed", { err });
          await sleep(backoff.next(), { signal }).catch(() => {}); // the loop looks at the signal
        }
      }
    },
  };

  /** Sleeps for half of `ms` and a random part of the rest; true when it ended early because nodes were lost. */
  async function waitOrShrink(ms: number, fewerThan: number, signal: AbortSignal): Promise<boolean> {
    const end = new AbortController();
    const either = AbortSignal.any([signal, end.signal]);
    try {
      return await Promise.race([
        sleep((ms / 2) * (1 + random()), { signal: either }).then(() => false),
        deps.untilFewer(fewerThan, { signal: either }).then(() => true),
      ]);
    } finally {
      end.abort();
    }
  }
}
