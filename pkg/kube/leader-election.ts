// SPDX-License-Identifier: Apache-2.0
import { sleep } from "#async";
import { hasCode } from "#errors";
import type { Logger } from "#log";
import type { KubeClient } from "./client.ts";
import { KubeError } from "./errors.ts";
import { formatMicroTime } from "./micro-time.ts";
import { LEASES, type Lease } from "./resource.ts";

export interface LeaderElectionOptions {
  readonly namespace: string;
  /** Name of the Lease. */
  readonly name: string;
  /** Unique among the candidates. */
  readonly identity: string;
  /** Another candidate may take over a Lease that was not renewed for this long; default 15 s. */
  readonly leaseDurationMs?: number;
  /** A leader that could not renew for this long gives up; default 10 s, less than the duration. */
  readonly renewDeadlineMs?: number;
  /** Between tries; default 2 s. */
  readonly retryPeriodMs?: number;
}

export interface LeaderElectionDeps {
  readonly client: KubeClient;
  readonly logger: Logger;
  readonly now?: () => number;
  readonly random?: () => number;
}

/**
 * Waits until this candidate leads, then runs `lead`, whose signal aborts when leadership is lost. The Lease is
 * released when `lead` returns or `signal` aborts, so that the next candidate need not wait. Follows client-go's
 * leaderelection: whether another's Lease has expired is judged by the local clock from when it was last seen to
 * change, so clocks need not agree.
 * @throws KubeError KUBE_LEADERSHIP_LOST; the program should exit then. What `lead` throws passes through.
 */
export async function runAsLeader(
  deps: LeaderElectionDeps,
  options: LeaderElectionOptions,
  lead: (signal: AbortSignal) => Promise<void>,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const candidate = createCandidate(deps, options);
  await candidate.acquire(signal);
  deps.logger.info("leadership acquired", { lease: options.name, identity: options.identity });
  const end = new AbortController();
  const renewing = candidate.renewUntilLost(AbortSignal.any([signal, end.signal]));
  const lost = new AbortController();
  renewing.catch((error: unknown) => lost.abort(error));
  try {
    await lead(AbortSignal.any([signal, lost.signal]));
  } catch (error) {
    if (!lost.signal.aborted) throw error;
  } finally {
    end.abort();
    await renewing.catch(() => {});
    if (!lost.signal.aborted) await candidate.release();
  }
  lost.signal.throwIfAborted();
}

interface Candidate {
  acquire(signal: AbortSignal): Promise<void>;
  renewUntilLost(signal: AbortSignal): Promise<void>;
  release(): Promise<void>;
}

function createCandidate(
  { client, logger, now = Date.now, random = Math.random }: LeaderElectionDeps,
  options: LeaderElectionOptions,
): Candidate {
  const { namespace, name, identity } = options;
  const leaseDurationMs = options.leaseDurationMs ?? 15_000;
  const renewDeadlineMs = options.renewDeadlineMs ?? 10_000;
  const retryPeriodMs = options.retryPeriodMs ?? 2000;
  /** The Lease as last seen, and the local time when it was first seen so. */
  let seen: { version: string; atMs: number } | undefined;

  /** True when this candidate holds the Lease afterwards. Rejects when the API server cannot be asked. */
  async function tryToHold(signal: AbortSignal): Promise<boolean> {
    const lease = await client.find(LEASES, { namespace, name }, { signal });
    try {
      if (lease === undefined) {
        await client.create(
          LEASES,
          { metadata: { namespace, name }, spec: { ...held(), leaseTransitions: 0 } },
          { signal },
        );
        return true;
      }
      const holder = lease.spec?.holderIdentity ?? "";
      if (holder !== identity && holder !== "" && !hasExpired(lease)) return false;
      await client.replace(LEASES, taken(lease, holder), { signal });
      return true;
    } catch (error) {
      if (hasCode(error, "KUBE_CONFLICT") || hasCode(error, "KUBE_ALREADY_EXISTS")) return false;
      throw error;
    }
  }

  function hasExpired(lease: Lease): boolean {
    const version = lease.metadata.resourceVersion ?? "";
    if (seen?.version !== version) seen = { version, atMs: now() };
    const durationMs =
      lease.spec?.leaseDurationSeconds === undefined
        ? leaseDurationMs
        : lease.spec.leaseDurationSeconds * 1000;
    return now() - seen.atMs > durationMs;
  }

  function held(): NonNullable<Lease["spec"]> {
    const time = formatMicroTime(now());
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.max(1, Math.ceil(leaseDurationMs / 1000)),
      acquireTime: time,
      renewTime: time,
    };
  }

  function taken(lease: Lease, holder: string): Lease {
    const renewed = holder === identity;
    const transitions = (lease.spec?.leaseTransitions ?? 0) + (renewed ? 0 : 1);
    const acquireTime = renewed ? lease.spec?.acquireTime : undefined;
    return {
      ...lease,
      spec: {
        ...lease.spec,
        ...held(),
        leaseTransitions: transitions,
        ...(acquireTime !== undefined && { acquireTime }),
      },
    };
  }

  return {
    async acquire(signal) {
      for (;;) {
        try {
          if (await tryToHold(signal)) return;
        } catch (error) {
          signal.throwIfAborted();
          logger.warn("asking for leadership failed, will try again", { lease: name, err: error });
        }
        await sleep(retryPeriodMs * (1 + 0.2 * random()), { signal });
      }
    },
    async renewUntilLost(signal) {
      let renewedAtMs = now();
      while (!signal.aborted) {
        await sleep(retryPeriodMs, { signal }).catch(() => {});
        if (signal.aborted) return;
        const leftMs = Math.max(1, renewedAtMs + renewDeadlineMs - now());
        const startedMs = now();
        const cause = await tryToHold(AbortSignal.any([signal, AbortSignal.timeout(leftMs)])).then(
          (isHeld) =>
            isHeld ? undefined : new Error("another candidate holds the Lease, or it changed meanwhile"),
          (error: unknown) => error,
        );
        if (cause === undefined) renewedAtMs = startedMs;
        else if (!signal.aborted && now() - renewedAtMs >= renewDeadlineMs) throw lostLeadership(cause);
      }
    },
    async release() {
      const signal = AbortSignal.timeout(renewDeadlineMs);
      try {
        const lease = await client.get(LEASES, { namespace, name }, { signal });
        if (lease.spec?.holderIdentity !== identity) return;
        const spec = { ...lease.spec, ...held(), holderIdentity: "", leaseDurationSeconds: 1 };
        await client.replace(LEASES, { ...lease, spec }, { signal });
      } catch (error) {
        logger.warn("the Lease could not be released, it will expire", { lease: name, err: error });
      }
    },
  };
}

function lostLeadership(cause: unknown): KubeError {
  return new KubeError({
    code: "KUBE_LEADERSHIP_LOST",
    message: "the Lease could not be renewed in time",
    cause,
  });
}
