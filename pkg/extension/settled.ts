// SPDX-License-Identifier: Apache-2.0
import type { Extension } from "#api/gardener";
import { TIMESTAMP_ANNOTATION } from "./names.ts";
import { requestedOperation } from "./operation.ts";

/** When gardenlet asked for the last operation, by its own clock; NaN when it does not say. */
export function requestedAtMs(object: {
  readonly metadata?: { readonly annotations?: Readonly<Record<string, string>> | null };
}): number {
  return Date.parse(object.metadata?.annotations?.[TIMESTAMP_ANNOTATION] ?? "");
}

/**
 * True when the status answers the last request: what gardenlet waits for before it goes on to the nodes
 * (pkg/utils/kubernetes/health, CheckExtensionObject). Then nobody is about to change it.
 */
export function isSettled(extension: Extension): boolean {
  const { metadata, status } = extension;
  const operation = status?.lastOperation;
  if (operation?.state !== "Succeeded" || isPresent(status?.lastError)) return false;
  if (status?.observedGeneration !== metadata.generation) return false;
  if (isPresent(metadata.deletionTimestamp) || requestedOperation(extension) !== undefined) return false;
  const requestedMs = requestedAtMs(extension);
  // The report has no fractions of a second.
  return !(Date.parse(operation.lastUpdateTime) < Math.floor(requestedMs / 1000) * 1000);
}

function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}
