// SPDX-License-Identifier: Apache-2.0
import { ConfigError, type ConfigProblem, choice, flag, integer, type Settings, text } from "#config";
import { isHostPort, listenAddressProblem } from "#http";
import type { WebhookTarget } from "#kube";
import { LOG_LEVELS, type LogLevel } from "#log";

/** What every program with a webhook can be told. Names follow Gardener's extension library. */
export interface WebhookFlags {
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
}

/** The settings of `WebhookFlags` for a program of this name. */
export function webhookSettings(program: string): Settings {
  return {
    leaderElection: flag("Let one replica alone do what not every replica has to do.", true),
    leaderElectionId: text("Name of the Lease.", `${program}-leader-election`),
    leaderElectionNamespace: text("Namespace of the Lease. Default: the pod's own."),
    webhookConfigMode: choice("How the API server reaches the webhook.", ["service", "url"], "service"),
    webhookConfigUrl: text(
      "Host, and port if it is not 443, of the webhook in mode url, e.g. <service>.<namespace>.",
    ),
    webhookConfigServerHost: text("Address the webhook listens on; empty: all.", ""),
    webhookConfigServerPort: integer("Port the webhook listens on.", {
      default: 10250,
      minimum: 0,
      maximum: 65535,
    }),
    webhookConfigServicePort: integer("Port of the webhook's Service.", {
      default: 443,
      minimum: 1,
      maximum: 65535,
    }),
    webhookConfigNamespace: text("Namespace of the Service and the certificates. Default: the pod's own."),
    webhookConfigOwnerNamespace: text(
      "Namespace that owns the webhook configuration. Default: --webhook-config-namespace.",
    ),
    metricsBindAddress: text("Address of /metrics.", ":8080"),
    healthBindAddress: text("Address of /healthz and /readyz.", ":8081"),
    shutdownDelaySeconds: integer(
      "Seconds for which a stopping program still serves the webhook, not ready.",
      { default: 5, minimum: 0, maximum: 300 },
    ),
    logLevel: choice("Least severe level that is logged.", LOG_LEVELS, "INFO"),
    logFormat: choice("Format of the log.", ["json"], "json"),
  };
}

/** What is wrong with them beyond their types. */
export function judgeWebhookFlags(flags: WebhookFlags): ConfigProblem[] {
  const addresses = [
    ["--metrics-bind-address", flags.metricsBindAddress],
    ["--health-bind-address", flags.healthBindAddress],
  ] as const;
  const problems = addresses.flatMap(([path, address]): ConfigProblem[] => {
    const message = listenAddressProblem(address);
    return message === undefined ? [] : [{ path, message }];
  });
  if (flags.webhookConfigMode === "url" && !isHostPort(flags.webhookConfigUrl ?? ""))
    problems.push({ path: "--webhook-config-url", message: "must be host or host:port in mode url" });
  return problems;
}

export interface WebhookPlace {
  /** Of the Service and the certificates. */
  readonly namespace: string;
  /** Of the registration: it goes with it. */
  readonly ownerNamespace: string;
  readonly leaseNamespace: string;
  readonly target: WebhookTarget;
}

/**
 * Where the webhook is found.
 *
 * @param service its Service
 * @param own the namespace of the pod
 * @throws ConfigError when a namespace is neither given nor that of a pod
 */
export function placeWebhook(flags: WebhookFlags, service: string, own: string | undefined): WebhookPlace {
  const namespace = flags.webhookConfigNamespace ?? own;
  if (namespace === undefined) {
    const problem = { path: "--webhook-config-namespace", message: "is required outside a pod" };
    throw new ConfigError({ code: "CONFIG_INVALID", problems: [problem] });
  }
  return {
    namespace,
    ownerNamespace: flags.webhookConfigOwnerNamespace ?? namespace,
    leaseNamespace: flags.leaderElectionNamespace ?? own ?? namespace,
    target:
      flags.webhookConfigMode === "url"
        ? { mode: "url", url: flags.webhookConfigUrl as string }
        : { mode: "service", namespace, name: service, port: flags.webhookConfigServicePort },
  };
}
