// SPDX-License-Identifier: Apache-2.0
import { applyManagedResource } from "../managed-resource.ts";
import { ORIGIN, SHOOT_RESOURCE_NAME } from "../names.ts";
import { shootObjects } from "../objects/shoot.ts";
import { type Step, unlessAsleep } from "../step.ts";

/** The bootstrapper's rights in the Shoot, through the Shoot's resource manager. */
export const deployShootObjects: Step = async (run, deps) => {
  const settings = {
    name: SHOOT_RESOURCE_NAME,
    namespace: run.namespace,
    labels: { origin: ORIGIN },
    injectLabels: { "shoot.gardener.cloud/no-cleanup": "true" },
    objects: shootObjects(),
  };
  await unlessAsleep(run, () => applyManagedResource(deps.client, settings, run));
  return undefined;
};
