// SPDX-License-Identifier: Apache-2.0
import { sleep } from "#async";
import { hasCode } from "#errors";
import type { Logger } from "#log";
import type { KubeClient } from "./client.ts";
import { formatMicroTime } from "./micro-time.ts";
import { LEASES } from "./resource.ts";

export interface HeartbeatOptions {
  readonly namespace: string;
  /** Name of the Lease. */
  readonly name: string;
  readonly holder: string;
  readonly intervalMs: number;
}

/**
 * Renews a Lease at each interval until the signal aborts: a sign of life that nobody competes for. Gardener reads
 * `gardener-extension-heartbeat` in the extension's namespace and regards conditions as unknown once it is stale.
 * Failures are logged; the next interval tries again.
 */
export async function beat(
  deps: { readonly client: KubeClient; readonly logger: Logger; readonly now?: () => number },
  options: HeartbeatOptions,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const now = deps.now ?? Date.now;
  while (!signal.aborted) {
    try {
      await renew(deps.client, options, now(), signal);
    } catch (error) {
      if (signal.aborted) return;
      deps.logger.warn("the heartbeat could not be written", { lease: options.name, err: error });
    }
    await sleep(options.intervalMs, { signal }).catch(() => {});
  }
}

async function renew(
  client: KubeClient,
  options: HeartbeatOptions,
  nowMs: number,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, name } = options;
  const spec = {
    holderIdentity: options.holder,
    leaseDurationSeconds: Math.ceil(options.intervalMs / 1000),
    renewTime: formatMicroTime(nowMs),
  };
  try {
    await client.mergePatch(LEASES, { namespace, name }, { spec }, { signal });
  } catch (error) {
    if (!hasCode(error, "KUBE_NOT_FOUND")) throw error;
    await client.create(LEASES, { metadata: { namespace, name }, spec }, { signal });
  }
}
