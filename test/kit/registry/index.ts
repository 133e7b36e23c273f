// SPDX-License-Identifier: Apache-2.0
/**
 * An upstream registry for tests and the demo: Debian's `docker-registry` where it is installed, else one in
 * this process. Both stand behind the same front, which counts every byte per client, may ask for
 * credentials, and can be told to fail in the ways real registries do.
 */

export { isDebianRegistryInstalled } from "./debian-registry.ts";
export type { Fault } from "./faults.ts";
export type { RequestRecord } from "./ledger.ts";
export {
  type Registry,
  type RegistryImplementation,
  type RegistryOptions,
  startRegistry,
} from "./start-registry.ts";
