// SPDX-License-Identifier: Apache-2.0
import { hostname } from "node:os";
import { createShootWebhook } from "#admission";
import { sleep } from "#async";
import { ConfigError } from "#config";
import { createWebhookCertificates, keepWebhookRegistered, type WebhookCertificates } from "#credentials";
import { createProbeServer, formatHostPort, openReviewServer } from "#http";
import {
  createKubeClient,
  type KubeClient,
  type KubeConnection,
  type LeaderElectionOptions,
  loadKubeConfig,
  registerWebhook,
  runAsLeader,
  type WebhookTarget,
} from "#kube";
import type { Logger } from "#log";
import { createMetrics, type Metrics } from "#metrics";
import type { KeyPair } from "#pki";
import packageJSON from "../../package.json" with { type: "json" };
import type { AdmissionFlags } from "./flags.ts";
import { COMPONENT, shootWebhook, WEBHOOK_PATH } from "./shoot-webhook.ts";

export interface AdmissionProgramDeps {
  readonly logger: Logger;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Ends the program: it gives up leadership, stays up for a while without being ready, then stops serving. */
  readonly signal: AbortSignal;
  /** Milliseconds since 1970; default Date.now. */
  readonly now?: () => number;
  /** Default: RSA 3072. */
  readonly createKey?: () => Promise<KeyPair>;
  /** Times that tests shorten. */
  readonly timing?: {
    readonly certificateIntervalMs?: number;
    readonly lease?: Pick<LeaderElectionOptions, "leaseDurationMs" | "renewDeadlineMs" | "retryPeriodMs">;
  };
}

/** A running admission; addresses are those of its sockets. */
export interface AdmissionProgram extends AsyncDisposable {
  readonly healthAddress: string;
  readonly metricsAddress: string;
  readonly webhookAddress: string;
  /** Resolves when the leader's work ended after a stop, rejects when it cannot go on, e.g. leadership was lost. */
  readonly finished: Promise<void>;
}

/** As often as Gardener's extension library looks after the certificates of webhooks. */
const CERTIFICATE_INTERVAL_MS = 300_000;

/**
 * Starts probes and the webhook on every replica, and its registration on the leader; disposing ends them in reverse.
 *
 * Certificates and the Lease are in the cluster of the pod (the runtime cluster), the registration in the virtual
 * garden, whose API server calls.
 */
export async function openAdmission(
  deps: AdmissionProgramDeps,
  flags: AdmissionFlags,
): Promise<AdmissionProgram> {
  const { logger } = deps;
  const stop = new AbortController();
  const signal = AbortSignal.any([deps.signal, stop.signal]);
  await using parts = new AsyncDisposableStack();
  const clusters = await connect(parts, deps, flags);
  const settings = settingsOf(flags, clusters.own);
  const metrics = createMetrics();
  let missing: string | undefined = "the webhook has no certificate yet";
  const notReady = (): string | undefined => (signal.aborted ? "the program is stopping" : missing);
  const health = parts.use(await createProbeServer({ notReady }, { address: flags.healthBindAddress }));
  const metricsServer = parts.use(
    await createProbeServer({ metrics }, { address: flags.metricsBindAddress }),
  );
  const { now = Date.now, createKey } = deps;
  const certificates = createWebhookCertificates(
    { client: clusters.runtime, logger, now, ...(createKey && { createKey }) },
    {
      namespace: settings.namespace,
      component: COMPONENT,
      name: "registry-spegel-admission",
      target: settings.target,
    },
  );
  const server = parts.use(
    await openReviewServer(
      {
        webhook: createShootWebhook({ logger, metrics }, optionsOf(flags)),
        certificates,
        logger,
        onWaiting: (reason) => void (missing = `the webhook has no certificate yet: ${reason}`),
      },
      {
        path: WEBHOOK_PATH,
        address: formatHostPort(flags.webhookConfigServerHost, flags.webhookConfigServerPort),
        reloadIntervalMs: deps.timing?.certificateIntervalMs ?? CERTIFICATE_INTERVAL_MS,
        signal,
      },
    ),
  );
  missing = undefined;
  const running = parts.move();
  const leading = lead({ ...deps, signal, ...clusters, metrics, certificates }, settings, flags);
  leading.catch(() => {}); // whoever runs the program awaits `finished`
  return {
    healthAddress: health.address,
    metricsAddress: metricsServer.address,
    webhookAddress: server.address,
    finished: leading,
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await leading.catch(() => {});
      // The API server may call until it knows that this replica is not ready.
      await sleep(flags.shutdownDelaySeconds * 1000, { signal: new AbortController().signal });
      await running.disposeAsync();
      logger.info("stopped");
    },
  };
}

interface Clusters {
  readonly garden: KubeClient;
  readonly runtime: KubeClient;
  /** Namespace of the pod. */
  readonly own: string | undefined;
}

async function connect(
  parts: AsyncDisposableStack,
  { environment }: AdmissionProgramDeps,
  flags: AdmissionFlags,
): Promise<Clusters> {
  const userAgent = `${COMPONENT}/${packageJSON.version}`;
  const load = (
    path: string | undefined,
    env: AdmissionProgramDeps["environment"],
  ): Promise<KubeConnection> => loadKubeConfig({ env, ...(path !== undefined && { path }) });
  const garden = await load(flags.kubeconfig, environment);
  const runtime = await load(flags.runtimeKubeconfig, { ...environment, KUBECONFIG: undefined });
  return {
    garden: parts.use(createKubeClient(garden, { userAgent })),
    runtime: parts.use(createKubeClient(runtime, { userAgent })),
    own: runtime.namespace,
  };
}

interface WebhookSettings {
  readonly namespace: string;
  readonly ownerNamespace: string;
  readonly leaseNamespace: string;
  readonly target: WebhookTarget;
}

/** @throws ConfigError when a namespace is neither given nor that of a pod */
function settingsOf(flags: AdmissionFlags, own: string | undefined): WebhookSettings {
  const namespace = flags.webhookConfigNamespace ?? own;
  const leaseNamespace = flags.leaderElectionNamespace ?? own ?? namespace;
  if (namespace === undefined || leaseNamespace === undefined) {
    const problem = { path: "--webhook-config-namespace", message: "is required outside a pod" };
    throw new ConfigError({ code: "CONFIG_INVALID", problems: [problem] });
  }
  const target: WebhookTarget =
    flags.webhookConfigMode === "url"
      ? { mode: "url", url: flags.webhookConfigUrl as string }
      : { mode: "service", namespace, name: COMPONENT, port: flags.webhookConfigServicePort };
  return {
    namespace,
    leaseNamespace,
    ownerNamespace: flags.webhookConfigOwnerNamespace ?? namespace,
    target,
  };
}

function optionsOf(flags: AdmissionFlags): Parameters<typeof createShootWebhook>[1] {
  const { registryPort, routerPort, metricsPort } = flags;
  return {
    operatorDefaults: {
      ...(registryPort !== undefined && { registryPort }),
      ...(routerPort !== undefined && { routerPort }),
      ...(metricsPort !== undefined && { metricsPort }),
    },
  };
}

interface LeaderDeps extends AdmissionProgramDeps, Clusters {
  readonly metrics: Metrics;
  readonly certificates: WebhookCertificates;
}

/** Registers the webhook while this replica leads; returns when the program is stopped. */
async function lead(deps: LeaderDeps, settings: WebhookSettings, flags: AdmissionFlags): Promise<void> {
  const { signal, logger, timing } = deps;
  const maintain = maintenance(deps, settings);
  try {
    if (!flags.leaderElection) return await maintain(signal);
    const identity = `${hostname()}_${crypto.randomUUID()}`;
    const lease = {
      namespace: settings.leaseNamespace,
      name: flags.leaderElectionId,
      identity,
      ...timing?.lease,
    };
    await runAsLeader({ client: deps.runtime, logger }, lease, maintain, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

function maintenance(
  { garden, certificates, logger, metrics, timing }: LeaderDeps,
  { target, ownerNamespace }: WebhookSettings,
): (signal: AbortSignal) => Promise<void> {
  let notAfterMs = 0;
  metrics.observedGauge(
    {
      name: "registry_spegel_webhook_certificate_expiration_timestamp_seconds",
      help: "Unix time at which the certificate of the webhook server ends.",
    },
    () => notAfterMs / 1000,
  );
  return (signal) =>
    keepWebhookRegistered(
      {
        certificates,
        logger,
        register: (caBundlePem) =>
          registerWebhook(garden, shootWebhook({ target, caBundlePem, ownerNamespace }), { signal }),
        onMaintained: (endsAtMs) => {
          notAfterMs = endsAtMs;
        },
      },
      { intervalMs: timing?.certificateIntervalMs ?? CERTIFICATE_INTERVAL_MS, signal },
    );
}
