// SPDX-License-Identifier: Apache-2.0
/** Waiting, retrying and background work, each bound to an AbortSignal. */
export { type BackoffOptions, createBackoff, sleep } from "./backoff.ts";
export { type DirectoryChangesOptions, directoryChanges } from "./directory-changes.ts";
export { createSemaphore, type Semaphore } from "./semaphore.ts";
export { createTaskGroup, type TaskGroup } from "./task-group.ts";
