// SPDX-License-Identifier: Apache-2.0
/**
 * A stand-in for gardener-resource-manager: applies ManagedResources, fills token secrets, collects garbage.
 *
 * It does what the contract says and nothing of how the real one does it: no patches of live objects, no health
 * checks of what it applied (a test says what is unhealthy), one instance for seed and Shoot.
 */
export { garbageAmong, type ResourceTarget, runResourceManager } from "./run.ts";
export { type ResourceManager, type ResourceManagerOptions, startResourceManager } from "./start.ts";
