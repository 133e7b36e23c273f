// SPDX-License-Identifier: Apache-2.0
import { type Static, type TInteger, Type } from "typebox";

export const SPEGEL_API_VERSION = "spegel.extensions.gardener.cloud/v1alpha1";
export const SPEGEL_CONFIG_KIND = "SpegelConfig";
export const SPEGEL_STATUS_KIND = "SpegelStatus";

/** Ports of a node when neither the Shoot nor the operator says otherwise (the proposal's defaults). */
export const SPEGEL_DEFAULT_PORTS = { registryPort: 5000, routerPort: 5001, metricsPort: 9090 } as const;

function portSchema(defaultPort: number, description: string): TInteger {
  return Type.Integer({ minimum: 1, maximum: 65535, default: defaultPort, description });
}

/** A TCP port, 1-65535, without a default. */
export const PortSchema = Type.Integer({ minimum: 1, maximum: 65535 });

/**
 * `Shoot.spec.extensions[type=registry-spegel].providerConfig`.
 *
 * The whole object may be absent, which is the normal case of an extension enabled for all Shoots.
 */
export const SpegelConfigSchema = Type.Object(
  {
    apiVersion: Type.Literal(SPEGEL_API_VERSION),
    kind: Type.Literal(SPEGEL_CONFIG_KIND),
    registryPort: Type.Optional(
      portSchema(
        SPEGEL_DEFAULT_PORTS.registryPort,
        "TCP port on each node that serves the OCI registry. All nodes of a Shoot use the same one.",
      ),
    ),
    routerPort: Type.Optional(
      portSchema(
        SPEGEL_DEFAULT_PORTS.routerPort,
        "TCP port on each node of the peer-to-peer router (libp2p).",
      ),
    ),
    metricsPort: Type.Optional(
      portSchema(
        SPEGEL_DEFAULT_PORTS.metricsPort,
        "TCP port of the metrics on each node's loopback address.",
      ),
    ),
  },
  { additionalProperties: false },
);

export type SpegelConfig = Static<typeof SpegelConfigSchema>;

/** The three ports after defaulting. */
export interface SpegelPorts {
  readonly registryPort: number;
  readonly routerPort: number;
  readonly metricsPort: number;
}

export const SPEGEL_PORT_FIELDS = ["registryPort", "routerPort", "metricsPort"] as const;
