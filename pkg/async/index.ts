// SPDX-License-Identifier: Apache-2.0
/** Waiting, retrying, following files and background work, each bounded by a signal or a limit. */
export { type BackoffOptions, createBackoff, sleep } from "./backoff.ts";
export { type DirectoryChangesOptions, directoryChanges } from "./directory-changes.ts";
export { readSmallFile } from "./read-small-file.ts";
export { createSemaphore, type Semaphore } from "./semaphore.ts";
export { createTaskGroup, type TaskGroup } from "./task-group.ts";
