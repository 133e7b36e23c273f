// SPDX-License-Identifier: Apache-2.0
import type { Extension, OperationType } from "#api/gardener";
import { OPERATION_ANNOTATION } from "./names.ts";

/** The value of `gardener.cloud/operation`, if any. */
export function requestedOperation(extension: Extension): string | undefined {
  return extension.metadata.annotations?.[OPERATION_ANNOTATION];
}

/**
 * What is to be done with an Extension (ComputeOperationType of Gardener's v1beta1 helper). An operation that did
 * not succeed is taken up again under its own name.
 */
export function operationOf(extension: Extension): OperationType {
  const requested = requestedOperation(extension);
  const last = extension.status?.lastOperation;
  if (requested === "migrate") return "Migrate";
  if (extension.metadata.deletionTimestamp !== undefined) return "Delete";
  if (requested === "restore") return "Restore";
  if (last === undefined) return "Create";
  const isUnfinished = last.state !== "Succeeded" && ["Create", "Migrate", "Restore"].includes(last.type);
  return isUnfinished ? last.type : "Reconcile";
}

/** True for an object that was handed over to another seed: until it is restored, nothing touches it here. */
export function isHandedOver(extension: Extension, operation: OperationType): boolean {
  const last = extension.status?.lastOperation;
  const isMigrated = last?.type === "Migrate" && last.state === "Succeeded";
  return isMigrated && operation !== "Migrate" && operation !== "Restore";
}
