// SPDX-License-Identifier: Apache-2.0
import { awaitReady } from "../managed-resource.ts";
import { SEED_RESOURCE_NAME, SHOOT_RESOURCE_NAME } from "../names.ts";
import { found, type Step } from "../step.ts";

/**
 * Success means that a node can ask the bootstrapper: only then gardenlet goes on to the nodes. In a hibernated Shoot
 * there is no API server to wait for.
 */
export const awaitHealthy: Step = async (run, deps) => {
  if (found(run.shoot, "the Shoot").isHibernated) return undefined;
  const { pollIntervalMs, healthTimeoutMs: timeoutMs } = deps.options;
  const wait = { signal: run.signal, pollIntervalMs, timeoutMs };
  await Promise.all(
    [SHOOT_RESOURCE_NAME, SEED_RESOURCE_NAME].map((name) =>
      awaitReady(deps.client, { namespace: run.namespace, name }, wait),
    ),
  );
  return undefined;
};
