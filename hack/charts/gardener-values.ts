// SPDX-License-Identifier: Apache-2.0
/** What the values of the charts for Gardener have in common. */
import Type, { type TSchema } from "typebox";
import { SPEGEL_DEFAULT_PORTS } from "../../api/spegel/v1alpha1/config.ts";
import { RESERVED_PORTS } from "../../api/spegel/v1alpha1/reserved-ports.ts";
import { closed, flag, handed, integer, map, objects, oneOf, text } from "./schema.ts";

/** Empty, or what a container runtime takes; as the flags of the programs have it. */
const IMAGE = { pattern: "^([A-Za-z0-9][A-Za-z0-9._:/@-]*)?$", maxLength: 1024 } as const;

export const imageRef = (of: string, more = ""): TSchema =>
  text("", `Image of ${of}: repository:tag or, better, repository@sha256:... Required.${more}`, IMAGE);

/** A port that nothing else on a Gardener node has; the programs judge it again. */
const nodePort = (fallback: number, description: string): TSchema =>
  Type.Integer({
    minimum: 1,
    maximum: 65535,
    not: { anyOf: RESERVED_PORTS.map(({ first, last }) => ({ minimum: first, maximum: last })) },
    default: fallback,
    description,
  });

export const portDefaults = (more: string): TSchema => {
  const about = (of: string): string =>
    `${of} port of nodes when a Shoot names none, by the rules for those of Shoots.${more}`;
  return closed({
    registryPort: nodePort(SPEGEL_DEFAULT_PORTS.registryPort, about("Registry")),
    routerPort: nodePort(SPEGEL_DEFAULT_PORTS.routerPort, about("Router")),
    metricsPort: nodePort(SPEGEL_DEFAULT_PORTS.metricsPort, about("Metrics")),
  });
};

/** Values of a Deployment with two replicas behind a webhook. */
export const podValues = (of: string, requests: object): Record<string, TSchema> => ({
  image: closed({
    ref: imageRef(of),
    pullPolicy: oneOf(["Always", "IfNotPresent", "Never"], "IfNotPresent", "Image pull policy."),
  }),
  imagePullSecrets: objects("Pull secrets of the pods."),
  replicaCount: integer(
    0,
    10,
    2,
    "Replicas. Every replica serves the webhook, one leads. Gardener's resource manager may raise it.",
  ),
  resources: map("Requests of the container; no limits, as Gardener asks of its components.", { requests }),
  logLevel: oneOf(["DEBUG", "INFO", "WARN", "ERROR"], "INFO", "Least severe level that is logged."),
  vpa: closed({
    enabled: flag(true, "Make a VerticalPodAutoscaler."),
    updateMode: oneOf(
      ["Off", "Initial", "Recreate", "InPlaceOrRecreate", "Auto"],
      "InPlaceOrRecreate",
      "When recommendations are applied.",
    ),
    minAllowed: map("Least that it recommends.", { memory: "64Mi" }),
  }),
});

export const handedOver = {
  gardener: handed("What Gardener puts in; not for people."),
  global: handed("Values that Helm hands to every chart; not used."),
} as const;

export const MEMORY_SIZE = { pattern: "^[1-9][0-9]{0,11}[KMG]?$" } as const;
export const QUANTITY = { pattern: "^[0-9]+(\\.[0-9]+)?(m|Ki|Mi|Gi|k|M|G)?$" } as const;
