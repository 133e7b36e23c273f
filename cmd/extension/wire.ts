// SPDX-License-Identifier: Apache-2.0
import { decodeSpegelConfig, portDefaultsOf } from "#admission";
import { createTaskGroup } from "#async";
import { createWebhookCertificates, keepWebhookRegistered, type WebhookCertificates } from "#credentials";
import {
  createExtensionMetrics,
  DEFAULT_EXTENSION_OPTIONS,
  EXTENSION_NAME,
  EXTENSION_TYPE,
  type ExtensionOptions,
  startExtensionController,
} from "#extension";
import {
  beat,
  createKubeClient,
  type KubeClient,
  loadKubeConfig,
  registerWebhook,
  signInWithPlugin,
} from "#kube";
import type { Logger } from "#log";
import { createMetrics, type Metrics } from "#metrics";
import { createOSCWebhook, type OSCWebhook } from "#osc";
import type { KeyPair } from "#pki";
import {
  type LeaseTimes,
  openWebhookProgram,
  placeWebhook,
  type WebhookPlace,
  type WebhookProgram,
} from "#program";
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
    readonly lease?: LeaseTimes;
  };
}

/** As often as Gardener's extension library looks after the certificates of webhooks. */
const CERTIFICATE_INTERVAL_MS = 300_000;
const HEARTBEAT_LEASE = "gardener-extension-heartbeat";

/** Starts the webhook on every replica, and the rest on the leader. */
export async function openExtension(
  deps: ExtensionProgramDeps,
  flags: ExtensionFlags,
): Promise<WebhookProgram> {
  await using parts = new AsyncDisposableStack();
  const connection = await loadKubeConfig({
    env: deps.environment,
    signIn: signInWithPlugin,
    ...(flags.kubeconfig !== undefined && { path: flags.kubeconfig }),
  });
  const client = parts.use(
    createKubeClient(connection, {
      userAgent: `${EXTENSION_NAME}/${packageJSON.version}`,
      requestsPerSecond: flags.kubeApiQps,
      burst: flags.kubeApiBurst,
    }),
  );
  const place = placeWebhook(flags, EXTENSION_NAME, connection.namespace);
  const metrics = createMetrics();
  const shared = {
    ...deps,
    client,
    metrics,
    place,
    heartbeatNamespace: flags.heartbeatNamespace ?? connection.namespace ?? place.namespace,
  };
  const certificates = flags.disableWebhooks.includes("registry-spegel")
    ? undefined
    : webhookCertificates(shared);
  const program = parts.use(
    await openWebhookProgram(
      {
        ...shared,
        ...(certificates && {
          webhook: { webhook: openWebhook(parts, shared, flags), certificates, path: WEBHOOK_PATH },
        }),
        lead: (signal) => runLeaderTasks({ ...shared, certificates }, flags, signal),
      },
      {
        ...flags,
        leaderElectionNamespace: place.leaseNamespace,
        certificateIntervalMs: deps.timing?.certificateIntervalMs ?? CERTIFICATE_INTERVAL_MS,
        ...(deps.timing?.lease && { lease: deps.timing.lease }),
      },
    ),
  );
  const running = parts.move();
  return { ...program, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

/** What all parts of the program use. */
interface Shared extends ExtensionProgramDeps {
  readonly client: KubeClient;
  readonly metrics: Metrics;
  readonly place: WebhookPlace;
  readonly heartbeatNamespace: string;
}

function webhookCertificates(shared: Shared): WebhookCertificates {
  const { client, logger, metrics, place, now = Date.now, createKey } = shared;
  return createWebhookCertificates(
    { client, logger, metrics, now, ...(createKey && { createKey }) },
    { ...place, component: EXTENSION_NAME, name: EXTENSION_TYPE },
  );
}

function openWebhook(parts: AsyncDisposableStack, shared: Shared, flags: ExtensionFlags): OSCWebhook {
  const { client, metrics } = shared;
  const logger = shared.logger.child({ webhook: "registry-spegel" });
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
  return countReviews(webhook, metrics);
}

interface LeaderDeps extends Shared {
  readonly certificates: WebhookCertificates | undefined;
}

async function runLeaderTasks(deps: LeaderDeps, flags: ExtensionFlags, signal: AbortSignal): Promise<void> {
  const { client, logger, certificates } = deps;
  await using tasks = createTaskGroup({ signal });
  if (certificates) tasks.run("webhook certificates", (inner) => maintainWebhook(deps, certificates, inner));
  if (!flags.disableControllers.includes("heartbeat")) {
    const intervalMs = flags.heartbeatRenewIntervalSeconds * 1000;
    const lease = {
      namespace: deps.heartbeatNamespace,
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
  { client, logger, place, timing }: LeaderDeps,
  certificates: WebhookCertificates,
  signal: AbortSignal,
): Promise<void> {
  await keepWebhookRegistered(
    {
      certificates,
      logger,
      register: (caBundlePem) => registerWebhook(client, oscWebhook({ ...place, caBundlePem }), { signal }),
    },
    { intervalMs: timing?.certificateIntervalMs ?? CERTIFICATE_INTERVAL_MS, signal },
  );
}

function startController(deps: LeaderDeps, flags: ExtensionFlags): AsyncDisposable {
  const { client, logger, now = Date.now, createKey, timing = {} } = deps;
  const { certificateIntervalMs: _interval, lease: _lease, backoff, ...waits } = timing;
  const operatorDefaults = portDefaultsOf(flags);
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
