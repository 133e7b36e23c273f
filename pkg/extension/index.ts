// SPDX-License-Identifier: Apache-2.0
/**
 * Life cycle of the Extension resource: `reconcile.ts` lists the steps of each operation, `runner.ts` runs them.
 *
 * Follows Gardener's contract for extensions (docs/extensions/resources/extension.md) and deploys by
 * ManagedResources, so that hibernation, deletion and garbage collection are the resource manager's.
 */
export {
  type ExtensionController,
  type ExtensionControllerOptions,
  startExtensionController,
} from "./controller.ts";
export { ExtensionError, type ExtensionErrorCode } from "./errors.ts";
export { bootstrapperHost } from "./host.ts";
export { createExtensionMetrics, type ExtensionMetrics } from "./metrics.ts";
export {
  AUTHORITY_NAME,
  BOOTSTRAPPER_NAME,
  CLIENT_CERTIFICATE_NAME,
  CLIENT_COMMON_NAME,
  CLUSTERS,
  CREDENTIALS_IDENTITY,
  EXTENSION_NAME,
  EXTENSION_TYPE,
  EXTENSIONS,
  FINALIZER,
  MANAGED_RESOURCES,
  SEED_RESOURCE_NAME,
  SERVER_CERTIFICATE_NAME,
  SHOOT_ACCESS_SECRET_NAME,
  SHOOT_RESOURCE_NAME,
} from "./names.ts";
export { monitoringObjects } from "./objects/monitoring.ts";
export { DEFAULT_EXTENSION_OPTIONS, type ExtensionOptions } from "./options.ts";
export type { Certificates, DecodeConfig, EnsuredCertificates } from "./ports.ts";
export { type RunnerDeps, runExtension } from "./runner.ts";
export { isSettled, requestedAtMs } from "./settled.ts";
