// SPDX-License-Identifier: Apache-2.0
import { sleep } from "#async";
import type { Logger } from "#log";
import type { KubeClient } from "./client.ts";
import { type CandidateDeps, createCandidate, type LeaseOptions, RETRY_JITTER } from "./lease-candidate.ts";

export interface LeaderElectionOptions extends LeaseOptions {
  /** Unique among the candidates. */
  readonly identity: string;
}

export interface LeaderElectionDeps extends Omit<CandidateDeps, "identity"> {
  readonly client: KubeClient;
  readonly logger: Logger;
  readonly random?: () => number;
}

/**
 * Waits until this candidate leads, then runs `lead`, whose signal aborts when leadership is lost. The Lease is
 * released when `lead` returns or `signal` aborts, so that the next candidate need not wait.
 * @throws KubeError KUBE_LEADERSHIP_LOST; the program should exit then. What `lead` throws passes through.
 */
export async function runAsLeader(
  deps: LeaderElectionDeps,
  options: LeaderElectionOptions,
  lead: (signal: AbortSignal) => Promise<void>,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const { client, logger, random = Math.random } = deps;
  const retryPeriodMs = options.retryPeriodMs ?? 2_000;
  const candidate = createCandidate({ ...deps, identity: () => options.identity }, options);
  for (;;) {
    try {
      if ((await candidate.tryToHold(client, { signal })) === "held") break;
    } catch (error) {
      signal.throwIfAborted();
      logger.warn("asking for leadership failed, will try again", { lease: options.name, err: error });
    }
    await sleep(retryPeriodMs * (1 + RETRY_JITTER * random()), { signal });
  }
  logger.info("leadership acquired", { lease: options.name, identity: options.identity });
  const end = new AbortController();
  const renewing = candidate.renewUntilLost(client, { signal: AbortSignal.any([signal, end.signal]) });
  const lost = new AbortController();
  renewing.catch((error: unknown) => lost.abort(error));
  try {
    await lead(AbortSignal.any([signal, lost.signal]));
  } catch (error) {
    if (!lost.signal.aborted) throw error;
  } finally {
    end.abort();
    await renewing.catch(() => {});
    if (!lost.signal.aborted) {
      await candidate.release(client).catch((error: unknown) => {
        logger.warn("the Lease could not be released, it will expire", { lease: options.name, err: error });
      });
    }
  }
  lost.signal.throwIfAborted();
}
