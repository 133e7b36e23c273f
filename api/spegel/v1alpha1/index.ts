// SPDX-License-Identifier: Apache-2.0
/** `spegel.extensions.gardener.cloud/v1alpha1`: what a Shoot may configure and what its Extension reports. */
export {
  PortSchema,
  SPEGEL_API_VERSION,
  SPEGEL_CONFIG_KIND,
  SPEGEL_DEFAULT_PORTS,
  SPEGEL_PORT_FIELDS,
  SPEGEL_STATUS_KIND,
  type SpegelConfig,
  SpegelConfigSchema,
  type SpegelPorts,
} from "./config.ts";
export { CONTESTED_PORTS, type PortRange, RESERVED_PORTS } from "./reserved-ports.ts";
export { type SpegelStatus, SpegelStatusSchema } from "./status.ts";
