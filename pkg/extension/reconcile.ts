// SPDX-License-Identifier: Apache-2.0
import type { OperationType } from "#api/gardener";
import type { Step } from "./step.ts";
import { awaitHealthy } from "./steps/await-healthy.ts";
import { decodeConfig } from "./steps/decode-config.ts";
import { deployBootstrapper } from "./steps/deploy-bootstrapper.ts";
import { deployShootObjects } from "./steps/deploy-shoot-objects.ts";
import { ensureCredentials } from "./steps/ensure-credentials.ts";
import { loadCluster } from "./steps/load-cluster.ts";
import { pruneCredentials } from "./steps/prune-credentials.ts";
import { reportStatus } from "./steps/report-status.ts";
import { stopIfIdle } from "./steps/stop-if-idle.ts";
import {
  awaitSeedObjectsGone,
  awaitShootObjectsGone,
  awaitShootObjectsGoneUnlessAsleep,
  deleteCredentials,
  deleteSeedObjects,
  deleteShootAccess,
  deleteShootObjects,
  keepShootObjects,
} from "./steps/tear-down.ts";

/** Bring a Shoot's bootstrapper into being, or to what it should be now. */
const RECONCILE: readonly Step[] = [
  loadCluster,
  stopIfIdle,
  decodeConfig,
  ensureCredentials,
  deployBootstrapper,
  deployShootObjects,
  awaitHealthy,
  reportStatus,
  pruneCredentials,
];

/** Remove everything; the Shoot's API server still lives, unless the Shoot sleeps. */
const DELETE: readonly Step[] = [
  deleteShootObjects,
  awaitShootObjectsGoneUnlessAsleep,
  deleteSeedObjects,
  awaitSeedObjectsGone,
  deleteShootAccess,
  deleteCredentials,
];

/** Remove everything without waiting: the Shoot's API server may be dead, gardenlet finalizes what is left. */
const FORCE_DELETE: readonly Step[] = [
  deleteShootObjects,
  deleteSeedObjects,
  deleteShootAccess,
  deleteCredentials,
];

/** Leave this seed: nothing in the Shoot may change, and the authority goes along in the ShootState. */
const MIGRATE: readonly Step[] = [
  keepShootObjects,
  deleteShootObjects,
  awaitShootObjectsGone,
  deleteSeedObjects,
  awaitSeedObjectsGone,
  deleteShootAccess,
];

/** The steps of an operation. A restored Extension is simply reconciled: its authority is already there. */
export function stepsOf(operation: OperationType, options: { readonly force: boolean }): readonly Step[] {
  switch (operation) {
    case "Create":
    case "Reconcile":
    case "Restore":
      return RECONCILE;
    case "Delete":
      return options.force ? FORCE_DELETE : DELETE;
    case "Migrate":
      return MIGRATE;
  }
}
