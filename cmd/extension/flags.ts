// SPDX-License-Identifier: Apache-2.0
import { judgePortDefaults } from "#admission";
import {
  ConfigError,
  type ConfigProblem,
  flag,
  integer,
  list,
  loadSettings,
  type Settings,
  text,
  usage,
} from "#config";
import { errorMessage } from "#errors";
import { EXTENSION_NAME } from "#extension";
import { createFilters } from "#mirror";
import { judgeWebhookFlags, type WebhookFlags, webhookSettings } from "#program";
import { overwriteImages } from "./image-vector.ts";

/** The settings of `extension` after parsing. Names follow Gardener's extension library. */
export interface ExtensionFlags extends WebhookFlags {
  readonly kubeconfig?: string;
  readonly maxConcurrentReconciles: number;
  readonly ignoreOperationAnnotation: boolean;
  readonly extensionClasses: readonly string[];
  /** After `--controllers` and `--disable-controllers`. */
  readonly disableControllers: readonly string[];
  readonly disableWebhooks: readonly string[];
  readonly heartbeatNamespace?: string;
  readonly heartbeatRenewIntervalSeconds: number;
  readonly gardenerVersion?: string;
  readonly selfHostedShootCluster: boolean;
  readonly kubeApiQps: number;
  readonly kubeApiBurst: number;

  readonly bootstrapperImage: string;
  readonly nodeImage: string;
  readonly registryPort?: number;
  readonly routerPort?: number;
  readonly metricsPort?: number;
  readonly resolveTags: boolean;
  readonly registryFilters: readonly string[];
  readonly mirrorProbedRegistries: boolean;
  readonly memoryHigh: string;
  readonly memoryMax: string;
  readonly watchdogSeconds?: number;
  readonly istioIngressNamespace: string;
  readonly istioIngressLabels: Readonly<Record<string, string>>;
  readonly bootstrapperCpuRequest: string;
  readonly bootstrapperMemoryRequest: string;
}

const CONTROLLERS = ["extension", "heartbeat"] as const;
const WEBHOOKS = ["registry-spegel"] as const;
const CLASSES = ["shoot", "seed", "garden"];

const SETTINGS: Settings = {
  kubeconfig: text("Kubeconfig of the seed. Default: KUBECONFIG, else the pod's own cluster."),
  ...webhookSettings(EXTENSION_NAME),
  maxConcurrentReconciles: integer("Extensions worked on at a time.", {
    default: 5,
    minimum: 1,
    maximum: 1000,
  }),
  ignoreOperationAnnotation: flag("Act on every change instead of gardenlet's annotation.", false),
  extensionClasses: list("Classes of Extensions to act on: shoot, seed, garden.", ["shoot"]),
  controllers: list(`Controllers to run, all when empty: ${CONTROLLERS.join(", ")}.`, []),
  disableControllers: list(`Controllers not to run: ${CONTROLLERS.join(", ")}.`, []),
  disableWebhooks: list(`Webhooks not to serve: ${WEBHOOKS.join(", ")}.`, []),
  heartbeatNamespace: text("Namespace of the heartbeat Lease. Default: the pod's own."),
  heartbeatRenewIntervalSeconds: integer("Seconds between heartbeats.", {
    default: 30,
    minimum: 1,
    maximum: 3600,
  }),
  gardenerVersion: text("Version of the gardenlet; for the log."),
  selfHostedShootCluster: flag(
    "The cluster is a Shoot with its own control plane: succeed without doing anything.",
    false,
  ),
  kubeApiQps: integer("Requests a second to the API server, on average.", {
    default: 100,
    minimum: 1,
    maximum: 10_000,
  }),
  kubeApiBurst: integer("Requests that may go at once.", { default: 130, minimum: 1, maximum: 10_000 }),
  bootstrapperImage: text("Image of the bootstrapper. Required, unless IMAGEVECTOR_OVERWRITE names it."),
  nodeImage: text("Image with the node executable. Required, unless IMAGEVECTOR_OVERWRITE names it."),
  registryPort: integer("Port of the registry on nodes when a Shoot says nothing; default 5000."),
  routerPort: integer("Port of the router on nodes when a Shoot says nothing; default 5001."),
  metricsPort: integer("Port of the metrics on nodes when a Shoot says nothing; default 9090."),
  resolveTags: flag("Let the mirror resolve tags; otherwise registries do, and check who asks.", true),
  registryFilters: list(
    "RE2 expressions; names registry/repository:tag that match one are neither served nor announced by nodes.",
    [],
  ),
  mirrorProbedRegistries: flag(
    "Go in front of registries with a readiness probe too, for which a node waits.",
    true,
  ),
  memoryHigh: text("systemd's MemoryHigh of the node daemon.", "80M"),
  memoryMax: text("systemd's MemoryMax of the node daemon.", "100M"),
  watchdogSeconds: integer("systemd's WatchdogSec of the node daemon; default 5, 0 for none.", {
    minimum: 0,
    maximum: 3600,
  }),
  istioIngressNamespace: text("Namespace of the seed's Istio ingress gateway.", "istio-ingress"),
  istioIngressLabels: list("Labels of its pods, each key=value.", [
    "app=istio-ingressgateway",
    "istio=ingressgateway",
    "istio-role=seed",
  ]),
  bootstrapperCpuRequest: text("CPU request of a bootstrapper.", "10m"),
  bootstrapperMemoryRequest: text("Memory request of a bootstrapper.", "48Mi"),
};

/** Flags of Gardener's extension library in Go that mean nothing here, and why. */
const FOREIGN_FLAGS: Readonly<Record<string, string>> = {
  "webhook-config-cert-dir": "the certificate is kept in a Secret and in memory, there is no folder for it",
  "leader-election-resource-lock": "the lock is always a Lease",
  "gardenlet-manages-mcm": "there are no machines here",
  master: "the API server is that of --kubeconfig",
};

/** The text of `--help`. */
export const USAGE: string = usage("gardener-extension-registry-spegel", SETTINGS);

/**
 * Reads flags, environment and file, and the image vector that IMAGEVECTOR_OVERWRITE names.
 * @throws ConfigError naming every wrong setting by the place it was written
 */
export async function readFlags(input: {
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
}): Promise<ExtensionFlags> {
  refuseForeignFlags(input.argv);
  const overwrite = input.environment["IMAGEVECTOR_OVERWRITE"];
  const { controllers, ...flags } = await loadSettings<RawFlags>(
    {
      properties: SETTINGS,
      complete: async (raw) => (overwrite ? { ...raw, ...(await overwriteImages(raw, overwrite)) } : raw),
      judge,
    },
    // KUBECONFIG is what every Kubernetes client reads; it is left to `loadKubeConfig`.
    { ...input, environment: { ...input.environment, KUBECONFIG: undefined } },
  );
  return Object.freeze({
    ...flags,
    extensionClasses: words(flags.extensionClasses),
    disableControllers: disabledControllers(words(controllers), words(flags.disableControllers)),
    disableWebhooks: words(flags.disableWebhooks),
    istioIngressLabels: Object.fromEntries(
      words(flags.istioIngressLabels).map((label) => label.split("=", 2)),
    ),
  }) as unknown as ExtensionFlags;
}

type RawFlags = Omit<ExtensionFlags, "bootstrapperImage" | "nodeImage" | "istioIngressLabels"> & {
  readonly bootstrapperImage?: string;
  readonly nodeImage?: string;
  readonly istioIngressLabels: readonly string[];
  readonly controllers: readonly string[];
};

function refuseForeignFlags(argv: readonly string[]): void {
  const problems = argv.flatMap((word): ConfigProblem[] => {
    const name = /^--([a-z-]+)/.exec(word)?.[1] ?? "";
    const reason = Object.hasOwn(FOREIGN_FLAGS, name) ? FOREIGN_FLAGS[name] : undefined;
    return reason === undefined
      ? []
      : [{ path: `--${name}`, message: `is not taken: ${reason}; leave it out` }];
  });
  if (problems.length > 0) throw new ConfigError({ code: "CONFIG_INVALID", problems });
}

/** Those that are not named, when some are, and those that are named as disabled. */
function disabledControllers(wanted: readonly string[], disabled: readonly string[]): string[] {
  return CONTROLLERS.filter(
    (name) => (wanted.length > 0 && !wanted.includes(name)) || disabled.includes(name),
  );
}

/** Lists are written with commas or as several words. */
function words(values: readonly string[]): string[] {
  return values
    .flatMap((value) => value.split(","))
    .map((word) => word.trim())
    .filter((word) => word !== "");
}

const IMAGE = /^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,1023}$/;
const LABEL = /^[A-Za-z0-9][A-Za-z0-9._/-]*=[A-Za-z0-9._-]*$/;
const QUANTITY = /^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|k|M|G)?$/;
const MEMORY = /^[1-9][0-9]{0,11}[KMG]?$/;

function judge(flags: RawFlags): ConfigProblem[] {
  const problems: ConfigProblem[] = [...judgeWebhookFlags(flags), ...judgePortDefaults(flags)];
  const demand = (isTrue: boolean, path: string, message: string): void => {
    if (!isTrue) problems.push({ path, message });
  };
  const known = (values: readonly string[], allowed: readonly string[], path: string): void =>
    demand(
      words(values).every((value) => allowed.includes(value)),
      path,
      `knows only ${allowed.join(", ")}`,
    );
  for (const [path, image] of [
    ["--bootstrapper-image", flags.bootstrapperImage],
    ["--node-image", flags.nodeImage],
  ] as const) {
    demand(image !== undefined && image !== "", path, "is required");
    demand(!image || IMAGE.test(image), path, "is not an image reference");
  }
  known(flags.extensionClasses, CLASSES, "--extension-classes");
  known(flags.controllers, CONTROLLERS, "--controllers");
  known(flags.disableControllers, CONTROLLERS, "--disable-controllers");
  known(flags.disableWebhooks, WEBHOOKS, "--disable-webhooks");
  problems.push(...judgeFilters(flags.registryFilters));
  demand(MEMORY.test(flags.memoryHigh), "--memory-high", "is not a size such as 80M");
  demand(MEMORY.test(flags.memoryMax), "--memory-max", "is not a size such as 100M");
  demand(QUANTITY.test(flags.bootstrapperCpuRequest), "--bootstrapper-cpu-request", "is not a quantity");
  demand(
    QUANTITY.test(flags.bootstrapperMemoryRequest),
    "--bootstrapper-memory-request",
    "is not a quantity",
  );
  const labels = words(flags.istioIngressLabels);
  demand(
    labels.length > 0 && labels.every((label) => LABEL.test(label)),
    "--istio-ingress-labels",
    "needs key=value",
  );
  return problems;
}

/** By the daemon's own rules: with a wrong one no daemon would start. */
function judgeFilters(registryFilters: readonly string[]): ConfigProblem[] {
  try {
    createFilters({ mirroredRegistries: [], registryFilters });
    return [];
  } catch (error) {
    return [{ path: "--registry-filters", message: errorMessage(error) }];
  }
}
