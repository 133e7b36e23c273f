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
  /** True while no node is known. */
  readonly isIsolated: () => boolean;
  /** Resolves when the node has become isolated, or the signal aborts. */
  readonly untilIsolated: (options: { readonly signal: AbortSignal }) => Promise<void>;
  /** Called after each attempt that reached somebody. */
  readonly onJoined: () => void;
  readonly random?: () => number;
}

export interface JoinOptions {
  /** First and longest wait while isolated. Default 50 ms and 10 s. */
  readonly retryInitialMs?: number;
  readonly retryMaxMs?: number;
  /** Between attempts while connected. Default 30 min. */
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
const INTERVAL_MS = 30 * 60_000;
const ATTEMPT_TIMEOUT_MS = 30_000;

/** Finds the first other nodes, again and again while there are none, and now and then afterwards to mend a split swarm. */
export function createJoining(deps: JoinDeps, options: JoinOptions = {}): Joining {
  const backoff = createBackoff({
    initialMs: options.retryInitialMs ?? RETRY_INITIAL_MS,
    maxMs: options.retryMaxMs ?? RETRY_MAX_MS,
    ...(deps.random === undefined ? {} : { random: deps.random }),
  });
  const intervalMs = options.intervalMs ?? INTERVAL_MS;
  const attemptTimeoutMs = options.attemptTimeoutMs ?? ATTEMPT_TIMEOUT_MS;
  let isAlone = false;

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
    else if (others.length > 0 && deps.isIsolated())
      deps.logger.warn("no bootstrap peer was reached", { tried: others.length });
  }

  return {
    get isAlone() {
      return isAlone;
    },
    async run({ signal }) {
      while (!signal.aborted) {
        try {
          await attempt(AbortSignal.any([signal, AbortSignal.timeout(attemptTimeoutMs)]));
          if (deps.isIsolated()) {
            await sleep(backoff.next(), { signal });
          } else {
            backoff.reset();
            const lonely = new AbortController();
            const either = AbortSignal.any([signal, lonely.signal]);
            await Promise.race([
              sleep(intervalMs, { signal: either }),
              deps.untilIsolated({ signal: either }),
            ]).finally(() => lonely.abort());
          }
        } catch (err) {
          if (signal.aborted) return;
          deps.logger.error("bootstrap attempt failed", { err });
          await sleep(backoff.next(), { signal }).catch(() => {}); // the loop looks at the signal
        }
      }
    },
  };
}
