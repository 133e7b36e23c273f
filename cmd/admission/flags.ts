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
import { isHostPort, listenAddressProblem } from "#http";
import { LOG_LEVELS, type LogLevel } from "#log";

/** The settings of `admission` after parsing. Names follow Gardener's extension library. */
export interface AdmissionFlags {
  /** Of the virtual garden. */
  readonly kubeconfig?: string;
  /** Of the cluster in which the program runs. */
  readonly runtimeKubeconfig?: string;
  readonly leaderElection: boolean;
  readonly leaderElectionId: string;
  readonly leaderElectionNamespace?: string;
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
  readonly logLevel: LogLevel;
  readonly logFormat: "json";

  readonly registryPort?: number;
  readonly routerPort?: number;
  readonly metricsPort?: number;
}

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
const choice = (values: readonly string[], value: string, description: string): Settings[string] => ({
  type: "string",
  enum: values,
  default: value,
  description,
});

const SETTINGS: Settings = {
  kubeconfig: text(
    "Kubeconfig of the virtual garden. Default: GARDEN_KUBECONFIG, KUBECONFIG, else the pod's own cluster.",
  ),
  runtimeKubeconfig: text(
    "Kubeconfig of the cluster with the certificates and the Lease. Default: the pod's own cluster.",
  ),
  leaderElection: {
    type: "boolean",
    default: true,
    description: "Let one replica alone renew certificates and register the webhook.",
  },
  leaderElectionId: text(
    "Name of the Lease.",
    "gardener-extension-registry-spegel-admission-leader-election",
  ),
  leaderElectionNamespace: text("Namespace of the Lease. Default: the pod's own."),
  webhookConfigMode: choice(["service", "url"], "service", "How the virtual garden reaches the webhook."),
  webhookConfigUrl: text(
    "Host, and port if it is not 443, of the webhook in mode url, e.g. <service>.<namespace>.",
  ),
  webhookConfigServerHost: text("Address the webhook listens on; empty: all.", ""),
  webhookConfigServerPort: number("Port the webhook listens on.", 10250),
  webhookConfigServicePort: number("Port of the webhook's Service.", 443),
  webhookConfigNamespace: text("Namespace of the Service and the certificates. Default: the pod's own."),
  webhookConfigOwnerNamespace: text(
    "Namespace in the virtual garden that owns the webhook configuration. Default: --webhook-config-namespace.",
  ),
  metricsBindAddress: text("Address of /metrics.", ":8080"),
  healthBindAddress: text("Address of /healthz and /readyz.", ":8081"),
  shutdownDelaySeconds: number(
    "Seconds for which a stopping program still serves the webhook, not ready.",
    5,
  ),
  logLevel: choice(LOG_LEVELS, "INFO", "Least severe level that is logged."),
  logFormat: choice(["json"], "json", "Format of the log."),
  registryPort: number("Port of the registry on nodes when a Shoot says nothing; as in the extension."),
  routerPort: number("Port of the router on nodes when a Shoot says nothing; as in the extension."),
  metricsPort: number("Port of the metrics on nodes when a Shoot says nothing; as in the extension."),
};

/** The text of `--help`. */
export const USAGE: string = usage("gardener-extension-registry-spegel-admission", SETTINGS);

/**
 * Reads flags, environment and file. GARDEN_KUBECONFIG is what gardener-operator puts into the pods of admissions.
 * @throws ConfigError naming every wrong setting by the place it was written
 */
export async function readFlags(input: {
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
}): Promise<AdmissionFlags> {
  // KUBECONFIG is what every Kubernetes client reads; it is left to `loadKubeConfig`.
  const environment = { ...input.environment, KUBECONFIG: undefined };
  const flags = await loadSettings<AdmissionFlags>(
    { properties: SETTINGS, validate: createTypeValidator(SETTINGS) },
    { ...input, environment },
  );
  const problems = judge(flags);
  if (problems.length > 0) throw new ConfigError({ code: "CONFIG_INVALID", problems });
  const kubeconfig = flags.kubeconfig || input.environment["GARDEN_KUBECONFIG"];
  return Object.freeze({ ...flags, ...(kubeconfig && { kubeconfig }) });
}

function judge(flags: AdmissionFlags): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const demand = (isTrue: boolean, path: string, message: string): void => {
    if (!isTrue) problems.push({ path, message });
  };
  for (const [path, address] of [
    ["--metrics-bind-address", flags.metricsBindAddress],
    ["--health-bind-address", flags.healthBindAddress],
  ] as const) {
    const problem = listenAddressProblem(address);
    demand(problem === undefined, path, problem ?? "");
  }
  for (const [path, value, first, last] of [
    ["--shutdown-delay-seconds", flags.shutdownDelaySeconds, 0, 300],
    ["--webhook-config-server-port", flags.webhookConfigServerPort, 0, 65535],
    ["--webhook-config-service-port", flags.webhookConfigServicePort, 1, 65535],
  ] as const) {
    const isWithin = value === undefined || (value >= first && value <= last);
    demand(isWithin, path, `must be between ${first} and ${last}`);
  }
  problems.push(...judgePortDefaults(flags));
  const isReachable = flags.webhookConfigMode === "service" || isHostPort(flags.webhookConfigUrl ?? "");
  demand(isReachable, "--webhook-config-url", "must be host or host:port in mode url");
  return problems;
}
