// SPDX-License-Identifier: Apache-2.0
import { found, type Step } from "../step.ts";
import { deleteCredentials, deleteSeedObjects, deleteShootAccess, deleteShootObjects } from "./tear-down.ts";

/**
 * A Shoot without nodes has nobody to serve, and one whose control plane lives on its own nodes has no seed to serve
 * from: success without doing anything, apart from removing what an earlier state may have left.
 */
export const stopIfIdle: Step = async (run, deps) => {
  const { idleReason } = found(run.shoot, "the Shoot");
  if (idleReason === undefined) return undefined;
  for (const step of [deleteShootObjects, deleteSeedObjects, deleteShootAccess, deleteCredentials])
    await step(run, deps);
  return { kind: "finish", reason: `the Shoot is ${idleReason}`, providerStatus: null };
};
