// SPDX-License-Identifier: Apache-2.0
import { SECRETS } from "#kube";
import { awaitGone, keepObjects } from "../managed-resource.ts";
import {
  MANAGED_RESOURCES,
  SEED_RESOURCE_NAME,
  SHOOT_ACCESS_SECRET_NAME,
  SHOOT_RESOURCE_NAME,
} from "../names.ts";
import { isAsleep } from "../shoot.ts";
import type { Run, Step, StepDeps } from "../step.ts";

export const deleteShootObjects: Step = async (run, deps) => {
  await deps.client.delete(MANAGED_RESOURCES, { namespace: run.namespace, name: SHOOT_RESOURCE_NAME }, run);
  return undefined;
};

export const awaitShootObjectsGone: Step = async (run, deps) => {
  await awaitResourceGone(SHOOT_RESOURCE_NAME, run, deps);
  return undefined;
};

/** Out of a Shoot that sleeps they go when it wakes up; gardenlet does not wait for them either. */
export const awaitShootObjectsGoneUnlessAsleep: Step = async (run, deps) => {
  return isAsleep(run.cluster) ? undefined : await awaitShootObjectsGone(run, deps);
};

export const deleteSeedObjects: Step = async (run, deps) => {
  await deps.client.delete(MANAGED_RESOURCES, { namespace: run.namespace, name: SEED_RESOURCE_NAME }, run);
  return undefined;
};

export const awaitSeedObjectsGone: Step = async (run, deps) => {
  await awaitResourceGone(SEED_RESOURCE_NAME, run, deps);
  return undefined;
};

async function awaitResourceGone(name: string, run: Run, deps: StepDeps): Promise<void> {
  const { pollIntervalMs, deletionTimeoutMs: timeoutMs } = deps.options;
  await awaitGone(
    deps.client,
    { namespace: run.namespace, name },
    { signal: run.signal, pollIntervalMs, timeoutMs },
  );
}

/** The objects stay in the Shoot when their ManagedResource goes: another seed takes them over. */
export const keepShootObjects: Step = async (run, deps) => {
  await keepObjects(deps.client, { namespace: run.namespace, name: SHOOT_RESOURCE_NAME }, run);
  return undefined;
};

export const deleteShootAccess: Step = async (run, deps) => {
  await deps.client.delete(SECRETS, { namespace: run.namespace, name: SHOOT_ACCESS_SECRET_NAME }, run);
  return undefined;
};

export const deleteCredentials: Step = async (run, deps) => {
  await deps.certificates.remove(run.namespace, run);
  return undefined;
};
