// SPDX-License-Identifier: Apache-2.0
import type { ExtensionStatus, OperationType } from "#api/gardener";
import { errorMessage } from "#errors";
import { formatTime } from "#kube";
import { ExtensionError } from "./errors.ts";

const MAX_DESCRIPTION_LENGTH = 2000;
const VERBS: Readonly<Record<OperationType, readonly [doing: string, done: string]>> = {
  Create: ["Creating", "created"],
  Reconcile: ["Reconciling", "reconciled"],
  Delete: ["Deleting", "deleted"],
  Migrate: ["Migrating", "migrated"],
  Restore: ["Restoring", "restored"],
};

/** Status patches; a field that is null is taken away, one that is absent stays. */
export type StatusPatch = {
  readonly status: { readonly [Field in keyof ExtensionStatus]?: ExtensionStatus[Field] | null };
};

/** Before any work: gardenlet sees that somebody took it up. */
export function processing(type: OperationType, nowMs: number): StatusPatch {
  const description = `${VERBS[type][0]} the Extension`;
  const lastUpdateTime = formatTime(nowMs);
  return {
    status: { lastOperation: { type, state: "Processing", progress: 1, description, lastUpdateTime } },
  };
}

/** The time is refreshed even when nothing changed: gardenlet waits for one after its own. */
export function succeeded(
  type: OperationType,
  generation: number,
  nowMs: number,
  detail?: string,
): StatusPatch {
  const description = `Successfully ${VERBS[type][1]} the Extension${detail === undefined ? "" : `: ${detail}`}`;
  const lastUpdateTime = formatTime(nowMs);
  return {
    status: {
      observedGeneration: generation,
      lastError: null,
      lastOperation: { type, state: "Succeeded", progress: 100, description, lastUpdateTime },
    },
  };
}

export function failed(type: OperationType, generation: number, nowMs: number, error: unknown): StatusPatch {
  const description = `${VERBS[type][0]} the Extension failed: ${errorMessage(error)}`.slice(
    0,
    MAX_DESCRIPTION_LENGTH,
  );
  const lastUpdateTime = formatTime(nowMs);
  const codes = error instanceof ExtensionError ? error.gardenerCodes : [];
  return {
    status: {
      observedGeneration: generation,
      lastOperation: { type, state: "Error", progress: 50, description, lastUpdateTime },
      lastError: { description, codes, lastUpdateTime },
    },
  };
}
