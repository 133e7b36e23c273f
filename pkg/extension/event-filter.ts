// SPDX-License-Identifier: Apache-2.0
import type { Extension } from "#api/gardener";
import type { InformerEvent } from "#kube";
import { EXTENSION_TYPE, TIMESTAMP_ANNOTATION } from "./names.ts";
import { requestedOperation } from "./operation.ts";

/** What the controller remembers of an Extension: enough to judge its next event. */
export interface ExtensionTrace {
  readonly requested?: string;
  /** When it was requested, as gardenlet wrote it. */
  readonly requestedAt?: string;
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
  const requestedAt = extension.metadata.annotations?.[TIMESTAMP_ANNOTATION];
  return {
    ...(requested !== undefined && { requested }),
    ...(requestedAt !== undefined && { requestedAt }),
    isDeleting: extension.metadata.deletionTimestamp !== undefined,
    generation: extension.metadata.generation ?? 0,
    hasSucceeded: extension.status?.lastOperation?.state === "Succeeded",
    status: JSON.stringify(extension.status ?? null),
  };
}

/**
 * Whether an event calls for a run. Our own patches must not: they would follow each other forever, and while the
 * annotation of a migration or a restoration still stands they would have it followed by a second run. That is
 * where this differs from the predicates of Gardener's extension library, which pass every event of an object that
 * carries the annotation; what failed is tried again without one.
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
  const { previous } = event;
  // After a new list one event may hold both the deletion and a report of ours.
  const isDeleting = object.isDeleting && (!previous.isDeleting || object.status === previous.status);
  const isChanged = object.generation !== previous.generation;
  if (options.ignoreAnnotation) return isDeleting || isChanged;
  const isNew = object.requested !== previous.requested || object.requestedAt !== previous.requestedAt;
  return isDeleting || (object.requested !== undefined && (isNew || isChanged));
}
