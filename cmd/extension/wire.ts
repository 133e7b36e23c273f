// SPDX-License-Identifier: Apache-2.0
import { hostname } from "node:os";
import { decodeSpegelConfig } from "#admission";
import { createTaskGroup, sleep } from "#async";
import { ConfigError } from "#config";
import { createWebhookCertificates, keepWebhookRegistered, type WebhookCertificates } from "#credentials";
import {
  createExtensionMetrics,
  DEFAULT_EXTENSION_OPTIONS,
  EXTENSION_NAME,
  EXTENSION_TYPE,
  type ExtensionOptions,
  startExtensionController,
} from "#extension";
import { createProbeServer, formatHostPort, openReviewServer } from "#http";
import {
  beat,
  createKubeClient,
  type KubeClient,
  type LeaderElectionOptions,
  loadKubeConfig,
  registerWebhook,
  runAsLeader,
  signInWithPlugin,
  type WebhookTarget,
} from "#kube";
import type { Logger } from "#log";
import { createMetrics, type Metrics } from "#metrics";
import { createOSCWebhook } from "#osc";
import type { KeyPair } from "#pki";
import packageJSON from "../../package.json" with { type: "json" };
import type { ExtensionFlags } from "./flags.ts";
import { createOSCContextReader } from "./osc-context.ts";
import { countReviews, oscWebhook, WEBHOOK_PATH } from "./osc-webhook.ts";
import { createShootCertificates } from "./shoot-certificates.ts";

export interface ExtensionProgramDeps {
  readonly logger: Logger;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Ends the program: it gives up leadership, stays up for a while without being ready, then stops serving. */
  readonly signal: AbortSignal;
  /** Milliseconds since 1970; default Date.now. */
  readonly now?: () => number;
  /** Default: RSA 3072. */
  readonly createKey?: () => Promise<KeyPair>;
  /** Times that tests shorten. */
  readonly timing?: Partial<
    Pick<ExtensionOptions, "pollIntervalMs" | "healthTimeoutMs" | "deletionTimeoutMs">
  > & {
    readonly certificateIntervalMs?: number;
    readonly backoff?: { readonly initialMs: number; readonly maxMs: number };
    readonly lease?: Pick<LeaderElectionOptions, "leaseDurationMs" | "renewDeadlineMs" | "retryPeriodMs">;
  };
}

/** A running extension; addresses are those of its sockets. */
export interface ExtensionProgram extends AsyncDisposable {
  readonly healthAddress: string;
  readonly metricsAddress: string;
  /** Absent when the webhook is disabled. */
  readonly webhookAddress?: string;
  /** Resolves when the leader's work ended after a stop, rejects when it cannot go on, e.g. leadership was lost. */
  readonly finished: Promise<void>;
}

/** As often as Gardener's extension library looks after the certificates of webhooks. */
const CERTIFICATE_INTERVAL_MS = 300_000;
const HEARTBEAT_LEASE = "gardener-extension-heartbeat";

/** Starts probes, the webhook on every replica, and the rest on the leader; disposing ends them in reverse. */
export async function openExtension(
  deps: ExtensionProgramDeps,
  flags: ExtensionFlags,
): Promise<ExtensionProgram> {
  const { logger } = deps;
  const stop = new AbortController();
  const signal = AbortSignal.any([deps.signal, stop.signal]);
  await using parts = new AsyncDisposableStack();
  const connection = await loadKubeConfig({
    env: deps.environment,
    signIn: signInWithPlugin,
    ...(flags.kubeconfig !== undefined && { path: flags.kubeconfig }),
  });
  const userAgent = `${EXTENSION_NAME}/${packageJSON.version}`;
  const client = parts.use(
    createKubeClient(connection, {
      userAgent,
      requestsPerSecond: flags.kubeApiQps,
      burst: flags.kubeApiBurst,
    }),
  );
  const namespaces = namespacesOf(flags, connection.namespace);
  const metrics = createMetrics();
  let webhookAddress: string | undefined;
  let missing = "the webhook has no certificate yet";
  const hasWebhook = !flags.disableWebhooks.includes("registry-spegel");
  const notReady = (): string | undefined => {
    if (signal.aborted) return "the program is stopping";
    return hasWebhook && webhookAddress === undefined ? missing : undefined;
  };
  const health = parts.use(await createProbeServer({ notReady }, { address: flags.healthBindAddress }));
  const metricsServer = parts.use(
    await createProbeServer({ metrics }, { address: flags.metricsBindAddress }),
  );
  const certificates = hasWebhook ? webhookCertificates(deps, client, flags, namespaces) : undefined;
  if (certificates) {
    const onWaiting = (reason: string): void =>
      void (missing = `the webhook has no certificate yet: ${reason}`);
    const webhookDeps = { ...deps, signal, client, metrics, certificates, onWaiting };
    webhookAddress = await serveWebhook(parts, webhookDeps, flags);
  }
  const running = parts.move();
  const leading = lead({ ...deps, signal, client, metrics, certificates, namespaces }, flags);
  leading.catch(() => {}); // whoever runs the program awaits `finished`
  return {
    healthAddress: health.address,
    metricsAddress: metricsServer.address,
    ...(webhookAddress !== undefined && { webhookAddress }),
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

interface Namespaces {
  readonly leaderElection: string;
  readonly heartbeat: string;
  readonly webhook: string;
  readonly webhookOwner: string;
}

/** @throws ConfigError when a namespace is neither given nor that of a pod */
function namespacesOf(flags: ExtensionFlags, own: string | undefined): Namespaces {
  const webhook = flags.webhookConfigNamespace ?? own;
  const leaderElection = flags.leaderElectionNamespace ?? own ?? webhook;
  const heartbeat = flags.heartbeatNamespace ?? own ?? webhook;
  if (webhook === undefined || leaderElection === undefined || heartbeat === undefined) {
    const problem = { path: "--webhook-config-namespace", message: "is required outside a pod" };
    throw new ConfigError({ code: "CONFIG_INVALID", problems: [problem] });
  }
  return { leaderElection, heartbeat, webhook, webhookOwner: flags.webhookConfigOwnerNamespace ?? webhook };
}

function targetOf(flags: ExtensionFlags, namespaces: Namespaces): WebhookTarget {
  if (flags.webhookConfigMode === "url") return { mode: "url", url: flags.webhookConfigUrl as string };
  return {
    mode: "service",
    namespace: namespaces.webhook,
    name: EXTENSION_NAME,
    port: flags.webhookConfigServicePort,
  };
}

function webhookCertificates(
  deps: ExtensionProgramDeps,
  client: KubeClient,
  flags: ExtensionFlags,
  namespaces: Namespaces,
): WebhookCertificates {
  const { logger, now = Date.now, createKey } = deps;
  return createWebhookCertificates(
    { client, logger, now, ...(createKey && { createKey }) },
    {
      namespace: namespaces.webhook,
      component: EXTENSION_NAME,
      name: EXTENSION_TYPE,
      target: targetOf(flags, namespaces),
    },
  );
}

async function serveWebhook(
  parts: AsyncDisposableStack,
  deps: ExtensionProgramDeps & {
    readonly client: KubeClient;
    readonly metrics: Metrics;
    readonly certificates: WebhookCertificates;
    readonly onWaiting: (reason: string) => void;
  },
  flags: ExtensionFlags,
): Promise<string> {
  const { client, metrics, certificates } = deps;
  const logger = deps.logger.child({ webhook: "registry-spegel" });
  const context = parts.use(createOSCContextReader({ client, logger }));
  const webhook = createOSCWebhook(
    { loadContext: context.load, logger },
    {
      image: flags.nodeImage,
      capabilities: flags.resolveTags ? ["pull", "resolve"] : ["pull"],
      registryFilters: flags.registryFilters,
      mirrorProbedRegistries: flags.mirrorProbedRegistries,
      memoryHigh: flags.memoryHigh,
      memoryMax: flags.memoryMax,
      ...(flags.watchdogSeconds !== undefined && { watchdogSeconds: flags.watchdogSeconds }),
    },
  );
  const server = parts.use(
    await openReviewServer(
      { webhook: countReviews(webhook, metrics), certificates, logger, onWaiting: deps.onWaiting },
      {
        path: WEBHOOK_PATH,
        address: formatHostPort(flags.webhookConfigServerHost, flags.webhookConfigServerPort),
        reloadIntervalMs: deps.timing?.certificateIntervalMs ?? CERTIFICATE_INTERVAL_MS,
        signal: deps.signal,
      },
    ),
  );
  return server.address;
}

interface LeaderDeps extends ExtensionProgramDeps {
  readonly client: KubeClient;
  readonly metrics: Metrics;
  readonly certificates: WebhookCertificates | undefined;
  readonly namespaces: Namespaces;
}

/** Runs the leader's work while this replica leads; returns when the program is stopped. */
async function lead(deps: LeaderDeps, flags: ExtensionFlags): Promise<void> {
  const { signal } = deps;
  try {
    if (!flags.leaderElection) return await runLeaderTasks(deps, flags, signal);
    const identity = `${hostname()}_${crypto.randomUUID()}`;
    const lease = {
      namespace: deps.namespaces.leaderElection,
      name: flags.leaderElectionId,
      identity,
      ...deps.timing?.lease,
    };
    await runAsLeader(deps, lease, (leading) => runLeaderTasks(deps, flags, leading), { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

async function runLeaderTasks(deps: LeaderDeps, flags: ExtensionFlags, signal: AbortSignal): Promise<void> {
  const { client, logger, certificates, namespaces } = deps;
  await using tasks = createTaskGroup({ signal });
  if (certificates)
    tasks.run("webhook certificates", (inner) => maintainWebhook(deps, flags, certificates, inner));
  if (!flags.disableControllers.includes("heartbeat")) {
    const intervalMs = flags.heartbeatRenewIntervalSeconds * 1000;
    const lease = {
      namespace: namespaces.heartbeat,
      name: HEARTBEAT_LEASE,
      holder: EXTENSION_NAME,
      intervalMs,
    };
    tasks.run("heartbeat", (inner) => beat({ client, logger }, lease, { signal: inner }));
  }
  if (!flags.disableControllers.includes("extension")) {
    tasks.run("extension controller", async (inner) => {
      await using _controller = startController(deps, flags);
      await aborted(inner);
    });
  }
  await tasks.finished;
}

async function maintainWebhook(
  deps: LeaderDeps,
  flags: ExtensionFlags,
  certificates: WebhookCertificates,
  signal: AbortSignal,
): Promise<void> {
  const { client, logger, namespaces, timing } = deps;
  let notAfterMs = 0;
  deps.metrics.observedGauge(
    {
      name: "registry_spegel_webhook_certificate_expiration_timestamp_seconds",
      help: "Unix time at which the certificate of the webhook server ends.",
    },
    () => notAfterMs / 1000,
  );
  const target = targetOf(flags, namespaces);
  const ownerNamespace = namespaces.webhookOwner;
  await keepWebhookRegistered(
    {
      certificates,
      logger,
      register: (caBundlePem) =>
        registerWebhook(client, oscWebhook({ target, caBundlePem, ownerNamespace }), { signal }),
      onMaintained: (endsAtMs) => {
        notAfterMs = endsAtMs;
      },
    },
    { intervalMs: timing?.certificateIntervalMs ?? CERTIFICATE_INTERVAL_MS, signal },
  );
}

function startController(deps: LeaderDeps, flags: ExtensionFlags): AsyncDisposable {
  const { client, logger, now = Date.now, createKey, timing = {} } = deps;
  const { certificateIntervalMs: _interval, lease: _lease, backoff, ...waits } = timing;
  const { registryPort, routerPort, metricsPort } = flags;
  const operatorDefaults = {
    ...(registryPort !== undefined && { registryPort }),
    ...(routerPort !== undefined && { routerPort }),
    ...(metricsPort !== undefined && { metricsPort }),
  };
  const { warnings } = decodeSpegelConfig(undefined, { operatorDefaults, path: "defaults" });
  for (const warning of warnings) logger.warn("a default port may be taken on nodes", { warning });
  return startExtensionController(
    {
      client,
      logger: logger.child({ controller: "extension" }),
      now,
      certificates: createShootCertificates({ client, logger, now, ...(createKey && { createKey }) }),
      decodeConfig: (providerConfig) => decodeSpegelConfig(providerConfig, { operatorDefaults }).ports,
      metrics: createExtensionMetrics(deps.metrics),
      options: {
        ...DEFAULT_EXTENSION_OPTIONS,
        ...waits,
        bootstrapperImage: flags.bootstrapperImage,
        nodeImage: flags.nodeImage,
        istio: { namespace: flags.istioIngressNamespace, labels: flags.istioIngressLabels },
        bootstrapperRequests: { cpu: flags.bootstrapperCpuRequest, memory: flags.bootstrapperMemoryRequest },
        selfHostedShootCluster: flags.selfHostedShootCluster,
      },
    },
    {
      workers: flags.maxConcurrentReconciles,
      classes: flags.extensionClasses,
      ignoreOperationAnnotation: flags.ignoreOperationAnnotation,
      ...(backoff && { backoff }),
    },
  );
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
