// SPDX-License-Identifier: Apache-2.0
import { createBackoff, sleep } from "#async";
import { errorMessage } from "#errors";
import type { Logger } from "#log";
import type { KubeClient } from "./client.ts";
import { type CandidateDeps, createCandidate, type LeaseOptions, RETRY_JITTER } from "./lease-candidate.ts";

export interface LeaderCampaignDeps extends CandidateDeps {
  /** Makes a client; called anew after a failure, so that renewed certificates and authorities are read. */
  readonly openClient: (options: { readonly signal: AbortSignal }) => Promise<KubeClient>;
  readonly logger: Logger;
  readonly random?: () => number;
}

/** An election that goes on for as long as the program runs: whoever leads, all want to know who it is. */
export interface LeaderCampaign {
  /** True while this candidate leads. */
  readonly isLeading: boolean;
  /**
   * The identity of the leader as last seen, also while the API server is away. While nobody was seen yet it waits for
   * the next try, and rejects with what that failed with.
   */
  leader(options: { readonly signal: AbortSignal }): Promise<string>;
  /** Runs for the Lease until the signal aborts, then releases it. Never rejects. */
  run(options: { readonly signal: AbortSignal }): Promise<void>;
}

/** Waits after failures grow up to this many retry periods. */
const MAX_BACKOFF_PERIODS = 5;

export function createLeaderCampaign(deps: LeaderCampaignDeps, options: LeaseOptions): LeaderCampaign {
  const { logger, random = Math.random } = deps;
  const retryPeriodMs = options.retryPeriodMs ?? 2_000;
  const lease = `${options.namespace}/${options.name}`;
  const candidate = createCandidate(deps, options);
  const failures = createBackoff({
    initialMs: 2 * retryPeriodMs,
    maxMs: MAX_BACKOFF_PERIODS * retryPeriodMs,
    random,
  });
  let outcome = Promise.withResolvers<void>();
  let lastFailure = "";
  let lastHolder: string | undefined;

  /** Lets those go on who wait for a leader. */
  function tell(error?: unknown): void {
    if (candidate.holder !== undefined && candidate.holder !== lastHolder) {
      lastHolder = candidate.holder;
      logger.info("the swarm has a leader", { lease, leader: lastHolder, isSelf: candidate.isLeading });
    }
    const told = outcome;
    outcome = Promise.withResolvers();
    outcome.promise.catch(() => {}); // nobody may be waiting
    if (error === undefined) told.resolve();
    else told.reject(error);
  }
  outcome.promise.catch(() => {});

  /** One line per kind of failure: an API server may be away for hours. */
  function report(error: unknown): void {
    const message = errorMessage(error);
    const level = message === lastFailure ? "debug" : "warn";
    lastFailure = message;
    logger[level]("leader election failed, will try again", { lease, err: error });
  }

  /** Until something fails or the signal aborts. */
  async function runWith(client: KubeClient, signal: AbortSignal): Promise<void> {
    for (;;) {
      const tried = await candidate.tryToHold(client, { signal });
      failures.reset();
      lastFailure = "";
      tell();
      if (tried !== "held") {
        await sleep(retryPeriodMs * (1 + RETRY_JITTER * random()), { signal });
        continue;
      }
      await candidate.renewUntilLost(client, { signal });
      return;
    }
  }

  return {
    get isLeading() {
      return candidate.isLeading;
    },
    async leader({ signal }) {
      while (candidate.holder === undefined) {
        signal.throwIfAborted();
        const aborted = Promise.withResolvers<never>();
        const onAbort = (): void => aborted.reject(signal.reason as Error);
        signal.addEventListener("abort", onAbort, { once: true });
        try {
          await Promise.race([outcome.promise, aborted.promise]);
        } finally {
          signal.removeEventListener("abort", onAbort);
        }
      }
      return candidate.holder;
    },
    async run({ signal }) {
      while (!signal.aborted) {
        try {
          await using client = await deps.openClient({ signal });
          try {
            await runWith(client, signal);
          } finally {
            if (signal.aborted) await candidate.release(client);
          }
        } catch (error) {
          if (signal.aborted) {
            if (error !== signal.reason)
              logger.warn("the Lease could not be released, it will expire", { lease, err: error });
            return;
          }
          report(error);
          tell(error);
          await sleep(failures.next(), { signal }).catch(() => {}); // the loop looks at the signal
        }
      }
    },
  };
}
