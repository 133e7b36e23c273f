// SPDX-License-Identifier: Apache-2.0
import { judgePortDefaults } from "#admission";
import {
  ConfigError,
  type ConfigProblem,
  createTypeValidator,
  loadSettings,
  type Settings,
  usage,
} from "#config";
import { errorMessage } from "#errors";
import { isHostPort, listenAddressProblem } from "#http";
import { LOG_LEVELS, type LogLevel } from "#log";
import { createFilters } from "#mirror";
import { overwriteImages } from "./image-vector.ts";

/** The settings of `extension` after parsing. Names follow Gardener's extension library. */
export interface ExtensionFlags {
  readonly kubeconfig?: string;
  readonly leaderElection: boolean;
  readonly leaderElectionId: string;
  readonly leaderElectionNamespace?: string;
  readonly maxConcurrentReconciles: number;
  readonly ignoreOperationAnnotation: boolean;
  readonly extensionClasses: readonly string[];
  /** After `--controllers` and `--disable-controllers`. */
  readonly disableControllers: readonly string[];
  readonly disableWebhooks: readonly string[];
  readonly heartbeatNamespace?: string;
  readonly heartbeatRenewIntervalSeconds: number;
  readonly webhookConfigMode: "service" | "url";
  readonly webhookConfigUrl?: string;
  readonly webhookConfigServerHost: string;
  readonly webhookConfigServerPort: number;
  readonly webhookConfigServicePort: number;
  readonly webhookConfigNamespace?: string;
  readonly webhookConfigOwnerNamespace?: string;
  readonly metricsBindAddress: string;
  readonly healthBindAddress: string;
  readonly shutdownDelaySeconds: number;
  readonly gardenerVersion?: string;
  readonly selfHostedShootCluster: boolean;
  readonly logLevel: LogLevel;
  readonly logFormat: "json";
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

const text = (description: string, value?: string): Settings[string] => ({
  type: "string",
  description,
  ...(value !== undefined && { default: value }),
});
const number = (description: string, value?: number): Settings[string] => ({
  type: "integer",
  description,
  ...(value !== undefined && { default: value }),
});
const flag = (description: string, value: boolean): Settings[string] => ({
  type: "boolean",
  description,
  default: value,
});
const list = (description: string, value: readonly string[]): Settings[string] => ({
  type: "array",
  description,
  default: value,
});

const SETTINGS: Settings = {
  kubeconfig: text("Kubeconfig of the seed. Default: KUBECONFIG, else the pod's own cluster."),
  leaderElection: flag("Let one replica alone act on Extensions.", true),
  leaderElectionId: text("Name of the Lease.", "gardener-extension-registry-spegel-leader-election"),
  leaderElectionNamespace: text("Namespace of the Lease. Default: the pod's own."),
  maxConcurrentReconciles: number("Extensions worked on at a time.", 5),
  ignoreOperationAnnotation: flag("Act on every change instead of gardenlet's annotation.", false),
  extensionClasses: list("Classes of Extensions to act on: shoot, seed, garden.", ["shoot"]),
  controllers: list(`Controllers to run, all when empty: ${CONTROLLERS.join(", ")}.`, []),
  disableControllers: list(`Controllers not to run: ${CONTROLLERS.join(", ")}.`, []),
  disableWebhooks: list(`Webhooks not to serve: ${WEBHOOKS.join(", ")}.`, []),
  heartbeatNamespace: text("Namespace of the heartbeat Lease. Default: the pod's own."),
  heartbeatRenewIntervalSeconds: number("Seconds between heartbeats.", 30),
  webhookConfigMode: {
    type: "string",
    enum: ["service", "url"],
    default: "service",
    description: "How the API server reaches the webhook.",
  },
  webhookConfigUrl: text("Host and port of the webhook in mode url, e.g. 10.0.0.1:10250."),
  webhookConfigServerHost: text("Address the webhook listens on; empty: all.", ""),
  webhookConfigServerPort: number("Port the webhook listens on.", 10250),
  webhookConfigServicePort: number("Port of the webhook's Service.", 443),
  webhookConfigNamespace: text("Namespace of the Service and the certificates. Default: the pod's own."),
  webhookConfigOwnerNamespace: text(
    "Namespace that owns the webhook configuration. Default: --webhook-config-namespace.",
  ),
  metricsBindAddress: text("Address of /metrics.", ":8080"),
  healthBindAddress: text("Address of /healthz and /readyz.", ":8081"),
  shutdownDelaySeconds: number(
    "Seconds for which a stopping program still serves the webhook, not ready.",
    5,
  ),
  gardenerVersion: text("Version of the gardenlet; for the log."),
  selfHostedShootCluster: flag(
    "The cluster is a Shoot with its own control plane: succeed without doing anything.",
    false,
  ),
  logLevel: {
    type: "string",
    enum: LOG_LEVELS,
    default: "INFO",
    description: "Least severe level that is logged.",
  },
  logFormat: { type: "string", enum: ["json"], default: "json", description: "Format of the log." },
  kubeApiQps: number("Requests a second to the API server, on average.", 100),
  kubeApiBurst: number("Requests that may go at once.", 130),
  bootstrapperImage: text("Image of the bootstrapper. Required, unless IMAGEVECTOR_OVERWRITE names it."),
  nodeImage: text("Image with the node executable. Required, unless IMAGEVECTOR_OVERWRITE names it."),
  registryPort: number("Port of the registry on nodes when a Shoot says nothing; default 5000."),
  routerPort: number("Port of the router on nodes when a Shoot says nothing; default 5001."),
  metricsPort: number("Port of the metrics on nodes when a Shoot says nothing; default 9090."),
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
  watchdogSeconds: number("systemd's WatchdogSec of the node daemon; default 5, 0 for none."),
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
  // KUBECONFIG is what every Kubernetes client reads; it is left to `loadKubeConfig`.
  const environment = { ...input.environment, KUBECONFIG: undefined };
  refuseForeignFlags(input.argv);
  const { controllers, ...settings } = await loadSettings<
    RawFlags & { readonly controllers: readonly string[] }
  >({ properties: SETTINGS, validate: createTypeValidator(SETTINGS) }, { ...input, environment });
  const overwrite = input.environment["IMAGEVECTOR_OVERWRITE"];
  const raw: RawFlags = overwrite
    ? { ...settings, ...(await overwriteImages(settings, overwrite)) }
    : settings;
  const problems = judge(raw, controllers);
  if (problems.length > 0) throw new ConfigError({ code: "CONFIG_INVALID", problems });
  return Object.freeze({
    ...raw,
    extensionClasses: words(raw.extensionClasses),
    disableControllers: disabledControllers(words(controllers), words(raw.disableControllers)),
    disableWebhooks: words(raw.disableWebhooks),
    istioIngressLabels: Object.fromEntries(words(raw.istioIngressLabels).map((label) => label.split("=", 2))),
  }) as unknown as ExtensionFlags;
}

type RawFlags = Omit<ExtensionFlags, "bootstrapperImage" | "nodeImage" | "istioIngressLabels"> & {
  readonly bootstrapperImage?: string;
  readonly nodeImage?: string;
  readonly istioIngressLabels: readonly string[];
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

function judge(flags: RawFlags, controllers: readonly string[]): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const demand = (isTrue: boolean, path: string, message: string): void => {
    if (!isTrue) problems.push({ path, message });
  };
  const within = (value: number | undefined, path: string, first: number, last: number): void =>
    demand(
      value === undefined || (value >= first && value <= last),
      path,
      `must be between ${first} and ${last}`,
    );
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
  for (const [path, address] of [
    ["--metrics-bind-address", flags.metricsBindAddress],
    ["--health-bind-address", flags.healthBindAddress],
  ] as const) {
    const problem = listenAddressProblem(address);
    demand(problem === undefined, path, problem ?? "");
  }
  within(flags.maxConcurrentReconciles, "--max-concurrent-reconciles", 1, 1000);
  within(flags.heartbeatRenewIntervalSeconds, "--heartbeat-renew-interval-seconds", 1, 3600);
  within(flags.shutdownDelaySeconds, "--shutdown-delay-seconds", 0, 300);
  within(flags.webhookConfigServerPort, "--webhook-config-server-port", 0, 65535);
  within(flags.webhookConfigServicePort, "--webhook-config-service-port", 1, 65535);
  within(flags.kubeApiQps, "--kube-api-qps", 1, 10_000);
  within(flags.kubeApiBurst, "--kube-api-burst", 1, 10_000);
  problems.push(...judgePortDefaults(flags));
  within(flags.watchdogSeconds, "--watchdog-seconds", 0, 3600);
  known(flags.extensionClasses, CLASSES, "--extension-classes");
  known(controllers, CONTROLLERS, "--controllers");
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
  const isUrlMode = flags.webhookConfigMode === "url";
  demand(
    !isUrlMode || isHostPort(flags.webhookConfigUrl ?? ""),
    "--webhook-config-url",
    "must be host:port in mode url",
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
