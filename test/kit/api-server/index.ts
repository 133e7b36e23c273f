// SPDX-License-Identifier: Apache-2.0
/** A Kubernetes API server for tests and the demo, in the process that asks for it. */
export type { ApiUser, PolicyRule } from "./authorization.ts";
export { type ApiTarget, apiServerCompliance } from "./compliance.ts";
export type { FaultAction, FaultMatch, Faults } from "./faults.ts";
export { readManifests, valueAt } from "./objects.ts";
export { DEFAULT_RESOURCES, type ServedResource } from "./resources.ts";
export type { RequestRecord } from "./server.ts";
export { type ApiObjectInit, type ApiServer, type ApiServerOptions, startApiServer } from "./start.ts";
export type { ApiObject } from "./storage.ts";
