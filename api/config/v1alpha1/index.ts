// SPDX-License-Identifier: Apache-2.0
/**
 * Component configuration of the programs.
 *
 * The schemas are written with TypeBox and compiled by `hack/generate.ts`, so that a program carries neither
 * TypeBox (3.5 MB of memory) nor a validator compiler.
 */

export { registrySchema } from "./gen/registry-schema.ts";
export { default as validateRegistryConfiguration } from "./gen/validate-registry.js";
export type { RegistryConfiguration } from "./registry.ts";
