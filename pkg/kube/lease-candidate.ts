// SPDX-License-Identifier: Apache-2.0
import { sleep } from "#async";
import { hasCode } from "#errors";
import type { KubeClient } from "./client.ts";
import { KubeError } from "./errors.ts";
import { formatMicroTime } from "./micro-time.ts";
import { LEASES, type Lease } from "./resource.ts";

export interface LeaseOptions {
  readonly namespace: string;
  /** Name of the Lease. */
  readonly name: string;
  /** Another candidate may take over a Lease that was not renewed for this long; default 15 s. */
  readonly leaseDurationMs?: number;
  /** A leader that could not renew for this long gives up; default 10 s, less than the duration. */
  readonly renewDeadlineMs?: number;
  /** Between tries; default 2 s. */
  readonly retryPeriodMs?: number;
}

export interface CandidateDeps {
  /** Unique among the candidates; undefined for one that looks on for the time being. */
  readonly identity: () => string | undefined;
  /** Milliseconds since 1970, for what is written into the Lease. */
  readonly now?: () => number;
  /** Milliseconds by which durations are measured. */
  readonly monotonicNow?: () => number;
}

/** `held`: the Lease is this candidate's. `other`: somebody else's, still valid. `raced`: it changed meanwhile. */
export type TryOutcome = "held" | "other" | "raced";

/** One who runs for a Lease. */
export interface Candidate {
  /** Who was last seen to hold the Lease; a released Lease does not make one forget it. */
  readonly holder: string | undefined;
  /** True from a successful try on for as long as nobody else can have taken over. */
  readonly isLeading: boolean;
  /** Takes or renews the Lease if it may be. Answers within the renew deadline. @throws KubeError with the remedy. */
  tryToHold(client: KubeClient, options: { readonly signal: AbortSignal }): Promise<TryOutcome>;
  /** Keeps renewing; resolves when the signal aborts. @throws KubeError KUBE_LEADERSHIP_LOST. */
  renewUntilLost(client: KubeClient, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Leaves the Lease to whoever comes next, if this candidate holds it. @throws KubeError. */
  release(client: KubeClient): Promise<void>;
}

/** As client-go's JitterFactor: waits between tries are up to this much longer. */
export const RETRY_JITTER = 1.2;
const RELEASE_TIMEOUT_MS = 2_000;
/** A Lease that says more is believed this much: its holder may be gone. */
const MAX_LEASE_DURATION_MS = 3_600_000;

/**
 * Follows client-go's leaderelection: whether another's Lease has expired is judged by the local clock from when it was
 * last seen to change, so that clocks need not agree; every write carries the version that was read.
 */
export function createCandidate(deps: CandidateDeps, options: LeaseOptions): Candidate {
  const { namespace, name } = options;
  const { now = Date.now, monotonicNow = () => performance.now() } = deps;
  const leaseDurationMs = options.leaseDurationMs ?? 15_000;
  const renewDeadlineMs = options.renewDeadlineMs ?? 10_000;
  const retryPeriodMs = options.retryPeriodMs ?? 2_000;
  /** The content of the Lease as last seen, and when it was first seen so. */
  let seen: { readonly content: string; readonly atMs: number } | undefined;
  let holder: string | undefined;
  /** The last successful try: as whom, and when its request was sent. */
  let held: { readonly identity: string; readonly atMs: number } | undefined;

  async function attempt(client: KubeClient, signal: AbortSignal): Promise<TryOutcome> {
    const identity = deps.identity();
    const startedMs = monotonicNow();
    const lease = await client.find(LEASES, { namespace, name }, { signal });
    const current = lease === undefined ? "" : holderOf(lease);
    if (current !== "") holder = current;
    const isExpired = lease === undefined || hasExpired(lease);
    if (identity === undefined || (current !== identity && current !== "" && !isExpired)) return "other";
    try {
      if (lease === undefined) {
        const spec = { ...fields(identity), leaseTransitions: 0 };
        await client.create(LEASES, { metadata: { namespace, name }, spec }, { signal });
      } else {
        await client.replace(LEASES, taken(lease, current, identity), { signal });
      }
    } catch (error) {
      if (hasCode(error, "KUBE_CONFLICT") || hasCode(error, "KUBE_ALREADY_EXISTS")) return "raced";
      throw error;
    }
    holder = identity;
    held = { identity, atMs: startedMs };
    return "held";
  }

  function hasExpired(lease: Lease): boolean {
    const content = JSON.stringify(lease.spec ?? {});
    if (seen?.content !== content) seen = { content, atMs: monotonicNow() };
    return monotonicNow() - seen.atMs > durationOf(lease, leaseDurationMs);
  }

  function fields(identity: string): NonNullable<Lease["spec"]> {
    const time = formatMicroTime(now());
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.max(1, Math.ceil(leaseDurationMs / 1000)),
      acquireTime: time,
      renewTime: time,
    };
  }

  function taken(lease: Lease, current: string, identity: string): Lease {
    const isRenewal = current === identity;
    const transitions = Number(lease.spec?.leaseTransitions ?? 0) + (isRenewal ? 0 : 1);
    const acquireTime = isRenewal ? lease.spec?.acquireTime : undefined;
    return {
      ...lease,
      spec: {
        ...lease.spec,
        ...fields(identity),
        leaseTransitions: Number.isSafeInteger(transitions) ? transitions : 0,
        ...(acquireTime !== undefined && { acquireTime }),
      },
    };
  }

  /** The same with a limit of time, and errors that say what to do. */
  async function tryWithin(client: KubeClient, limitMs: number, signal: AbortSignal): Promise<TryOutcome> {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(Math.max(1, Math.ceil(limitMs)))]);
    try {
      return await attempt(client, limited);
    } catch (error) {
      signal.throwIfAborted();
      throw explained(error, limited.aborted, options);
    }
  }

  return {
    get holder() {
      return holder;
    },
    get isLeading() {
      return held !== undefined && monotonicNow() - held.atMs < renewDeadlineMs;
    },
    tryToHold: (client, { signal }) => tryWithin(client, renewDeadlineMs, signal),
    async renewUntilLost(client, { signal }) {
      let cause: unknown;
      while (!signal.aborted) {
        const leftMs = (): number => (held?.atMs ?? -Infinity) + renewDeadlineMs - monotonicNow();
        await sleep(Math.max(0, Math.min(retryPeriodMs, leftMs())), { signal }).catch(() => {});
        if (signal.aborted) return;
        if (leftMs() <= 0) throw lost(cause);
        const outcome = await tryWithin(client, leftMs(), signal).catch((error: unknown) => {
          cause = error;
        });
        if (outcome !== "other") continue;
        held = undefined;
        throw lost(new Error(`the Lease is held by ${JSON.stringify(holder)}`));
      }
    },
    async release(client) {
      const was = held;
      held = undefined;
      if (was === undefined) return;
      const signal = AbortSignal.timeout(Math.min(renewDeadlineMs, RELEASE_TIMEOUT_MS));
      const lease = await client.get(LEASES, { namespace, name }, { signal });
      if (holderOf(lease) !== was.identity) return;
      const spec = { ...lease.spec, ...fields(""), leaseDurationSeconds: 1 };
      await client.replace(LEASES, { ...lease, spec }, { signal });
    },
  };
}

/** Of a field that is no string nobody can say who it names: nobody holds the Lease. */
function holderOf(lease: Lease): string {
  const value: unknown = lease.spec?.holderIdentity;
  return typeof value === "string" ? value : "";
}

function durationOf(lease: Lease, defaultMs: number): number {
  const seconds: unknown = lease.spec?.leaseDurationSeconds;
  if (typeof seconds !== "number" || !(seconds > 0)) return defaultMs;
  return Math.min(seconds * 1000, MAX_LEASE_DURATION_MS);
}

function explained(error: unknown, isTimeout: boolean, { namespace, name }: LeaseOptions): unknown {
  const lease = `Lease ${namespace}/${name}`;
  if (isTimeout)
    return new KubeError({ code: "KUBE_TIMEOUT", message: `${lease}: no answer in time`, cause: error });
  if (!(error instanceof KubeError)) return error;
  const remedy = remedyOf(error, namespace);
  if (remedy === undefined) return error;
  const { code, status, reason } = error;
  return new KubeError({
    code,
    message: `${lease}: ${error.message}; ${remedy}`,
    cause: error,
    status,
    reason,
  });
}

function remedyOf({ code }: KubeError, namespace: string): string | undefined {
  if (code === "KUBE_FORBIDDEN")
    return `a Role in namespace ${namespace} has to allow get, create and update of leases in API group coordination.k8s.io`;
  if (code === "KUBE_NOT_FOUND") return `namespace ${namespace} has to exist`;
  if (code === "KUBE_UNAUTHORIZED") return "the token has to be one that this API server accepts";
  return undefined;
}

function lost(cause: unknown): KubeError {
  return new KubeError({
    code: "KUBE_LEADERSHIP_LOST",
    message: "the Lease could not be renewed in time",
    cause,
  });
}
