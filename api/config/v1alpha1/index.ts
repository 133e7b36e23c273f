// SPDX-License-Identifier: Apache-2.0
/**
 * Component configuration of the programs.
 *
 * The schemas are written with TypeBox and compiled by `hack/generate.ts`, so that a program carries neither
 * TypeBox (3.5 MB of memory) nor a validator compiler.
 */

export type { CleanupSettings } from "./cleanup.ts";
export type { CleanupWaitSettings } from "./cleanup-wait.ts";
export type { ConfigurationSettings } from "./configuration.ts";
export { cleanupSchema } from "./gen/cleanup-schema.ts";
export { cleanupWaitSchema } from "./gen/cleanup-wait-schema.ts";
export { configurationSchema } from "./gen/configuration-schema.ts";
export { registrySchema } from "./gen/registry-schema.ts";
export { default as validateCleanupSettings } from "./gen/validate-cleanup.js";
export { default as validateCleanupWaitSettings } from "./gen/validate-cleanup-wait.js";
export { default as validateConfigurationSettings } from "./gen/validate-configuration.js";
export { default as validateRegistryConfiguration } from "./gen/validate-registry.js";
export type { RegistryConfiguration } from "./registry.ts";
