// SPDX-License-Identifier: Apache-2.0
/** The values of charts/gardener-extension-registry-spegel: what an operator decides for all Shoots of a seed. */
import Type, { type TObject } from "typebox";
import { handedOver, imageRef, MEMORY_SIZE, podValues, portDefaults, QUANTITY } from "./gardener-values.ts";
import { closed, flag, integer, labels, strings, text } from "./schema.ts";

export const ExtensionValuesSchema: TObject = closed({
  ...podValues("the extension", { cpu: "20m", memory: "96Mi" }),
  metrics: closed({
    enableScraping: flag(true, "Let Prometheus find the pods."),
    enableAlerts: flag(true, "Give the seed's Prometheus rules for alerts; only with enableScraping."),
  }),
  controllers: closed({
    extension: closed({
      concurrentSyncs: integer(1, 1000, 5, "Extensions worked on at a time."),
      ignoreOperationAnnotation: flag(
        false,
        "Act on every change instead of gardenlet's annotation; for development.",
      ),
    }),
    heartbeat: closed({ renewIntervalSeconds: integer(1, 3600, 30, "Seconds between heartbeats.") }),
  }),
  clientConnection: closed({
    qps: integer(1, 10_000, 100, "Requests a second to the API server, on average."),
    burst: integer(1, 10_000, 130, "Requests that may go at once."),
  }),
  disableControllers: strings("Controllers not to run.", [], Type.Enum(["extension", "heartbeat"])),
  disableWebhooks: strings("Webhooks not to serve.", [], Type.Enum(["registry-spegel"])),
  imageVectorOverwrite: Type.Unsafe({
    type: ["object", "string"],
    default: {},
    description:
      "Other images than below, in the form of Gardener's image vector, as text or as an object: images is a list of name (spegel, registry-spegel-bootstrapper) with ref, or repository and tag.",
  }),
  defaults: portDefaults(" The admission needs the same."),
  node: closed({
    image: closed({
      ref: imageRef(
        "the daemon on nodes",
        " New nodes pull it before their kubelet starts: keep it where all of them reach it.",
      ),
    }),
    resolveTags: flag(
      true,
      "Let the mirror resolve tags. Otherwise the registries do, and check who asks; images by digest still come from other nodes.",
    ),
    registryFilters: Type.Array(Type.String({ minLength: 1, maxLength: 1000 }), {
      default: [],
      maxItems: 100,
      description:
        "RE2 expressions; images whose registry/repository:tag matches one are neither served nor announced, e.g. ^private[.]example[.]com/.",
    }),
    mirrorProbedRegistries: flag(
      true,
      "Go in front of registries with a readiness probe too, such as those of registry-cache. With false these go without the mirror, and nodes do not wait for it.",
    ),
    memoryHigh: text("80M", "systemd's MemoryHigh of the daemon.", MEMORY_SIZE),
    memoryMax: text("100M", "systemd's MemoryMax of the daemon.", MEMORY_SIZE),
    watchdogSeconds: integer(
      0,
      3600,
      5,
      "systemd's WatchdogSec: a daemon that hangs this long is killed, and started again; 0 is never.",
    ),
  }),
  bootstrapper: closed({
    image: closed({ ref: imageRef("the bootstrapper that runs for each Shoot") }),
    requests: closed({
      cpu: text("10m", "CPU request of a bootstrapper.", QUANTITY),
      memory: text("48Mi", "Memory request of a bootstrapper.", QUANTITY),
    }),
  }),
  istio: closed({
    ingressGateway: closed({
      namespace: text("istio-ingress", "Namespace of the seed's Istio ingress gateway.", { minLength: 1 }),
      labels: labels("Labels of its pods; null takes one away.", {
        app: "istio-ingressgateway",
        istio: "ingressgateway",
        "istio-role": "seed",
      }),
    }),
  }),
  ...handedOver,
});
