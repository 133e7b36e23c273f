// SPDX-License-Identifier: Apache-2.0
import type { Extension } from "#api/gardener";
import type { InformerEvent } from "#kube";
import { EXTENSION_TYPE } from "./names.ts";
import { requestedOperation } from "./operation.ts";

/** What the controller remembers of an Extension: enough to judge its next event. */
export interface ExtensionTrace {
  readonly requested?: string;
  readonly isDeleting: boolean;
  readonly generation: number;
  readonly hasSucceeded: boolean;
  /** Changes with the status. */
  readonly status: string;
}

/** Undefined for Extensions of other types and classes. An absent class is `shoot`. */
export function traceOf(extension: Extension, classes: readonly string[]): ExtensionTrace | undefined {
  if (extension.spec?.type !== EXTENSION_TYPE) return undefined;
  if (!classes.includes(extension.spec.class ?? "shoot")) return undefined;
  const requested = requestedOperation(extension);
  return {
    ...(requested !== undefined && { requested }),
    isDeleting: extension.metadata.deletionTimestamp !== undefined,
    generation: extension.metadata.generation ?? 0,
    hasSucceeded: extension.status?.lastOperation?.state === "Succeeded",
    status: JSON.stringify(extension.status ?? null),
  };
}

/**
 * Whether an event calls for a run, as the predicates of Gardener's extension library decide it. Our own status
 * patches must not: they would follow each other forever.
 */
export function callsForRun(
  event: InformerEvent<ExtensionTrace>,
  options: { readonly ignoreAnnotation: boolean },
): boolean {
  const { object } = event;
  if (event.type === "deleted") return false;
  if (event.type === "added") {
    const isRequested = ["reconcile", "restore", "migrate"].includes(object.requested ?? "");
    return options.ignoreAnnotation || isRequested || object.isDeleting || !object.hasSucceeded;
  }
  const isDeleting = object.isDeleting && object.status === event.previous.status;
  if (options.ignoreAnnotation) return isDeleting || object.generation !== event.previous.generation;
  return object.requested !== undefined || isDeleting;
}
