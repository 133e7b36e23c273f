// SPDX-License-Identifier: Apache-2.0
import { ExtensionError } from "../errors.ts";
import { readShoot } from "../shoot.ts";
import type { Step } from "../step.ts";

/** Reads what the Cluster says about the Shoot. */
export const loadCluster: Step = async (run, deps) => {
  if (run.cluster === undefined) {
    throw new ExtensionError({
      code: "EXTENSION_CLUSTER_INVALID",
      message: `namespace ${run.namespace} has no Cluster, or is not the namespace of a Shoot`,
    });
  }
  const shoot = readShoot(run.cluster);
  run.shoot = deps.options.selfHostedShootCluster ? { ...shoot, idleReason: "self-hosted" } : shoot;
  return undefined;
};
