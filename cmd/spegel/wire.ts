// SPDX-License-Identifier: Apache-2.0

import { type Advertiser, createAdvertiseMetrics, createAdvertiser } from "#advertise";
import type { RegistryConfiguration } from "#api/config";
import { createTaskGroup } from "#async";
import { ConfigError, parseDuration } from "#config";
import { openContainerdStore } from "#containerd";
import { openPlainServer, parseListenAddress } from "#http";
import { createKubeClient, type KubeClient, loadKubeConfig } from "#kube";
import type { Logger } from "#log";
import { createMetrics, type Metrics } from "#metrics";
import {
  createFilters,
  createMirrorMetrics,
  createPeerHealth,
  openRegistryServer,
  readBasicAuth,
} from "#mirror";
import { type ContentStore, createGuardedStore, type GuardedStore, openOCILayoutStore } from "#store";
import {
  type BootstrapSource,
  bootstrapPeerUrl,
  createDnsBootstrap,
  createHttpBootstrap,
  createKubernetesBootstrap,
  createStaticBootstrap,
  createSwarmMetrics,
  openSwarm,
  serveBootstrapId,
} from "#swarm";
import { BASIC_AUTH_DIRECTORY } from "./basic-auth-directory.ts";
import { answerMetrics } from "./metrics-server.ts";

/** Where Gardener's node agent pulls the images whose files it extracts, the node's own components among them. */
const IMAGE_EXTRACTION_NAMESPACE = "default";

/** Tuning that is not a setting; see docs/LIMITS.md. */
const HEDGE_AFTER_MS = 50;
const ANSWER_TIMEOUT_MS = 1_000;
const STALL_TIMEOUT_MS = 800;
const MAX_PARALLEL_PEERS = 3;
const AVOID_PEER_MS = 10_000;
const MAX_AVOIDED_PEERS = 1_024;
/** A Lease has some hundred bytes. */
const MAX_KUBE_RESPONSE_BYTES = 64 * 1024;

/** A running `spegel registry`. */
export interface Registry extends AsyncDisposable {
  /** Resolves when the signal has aborted and all work has ended; rejects when a part failed. */
  readonly finished: Promise<void>;
}

/**
 * Puts the daemon together: store, swarm, advertiser, registry, metrics, in this order; stopped in reverse.
 *
 * @throws ConfigError for settings that do not fit together; the system error of a listen; StoreError, SwarmError
 */
export async function openRegistry(
  configuration: RegistryConfiguration,
  context: { readonly log: Logger; readonly signal: AbortSignal },
): Promise<Registry> {
  const { log, signal } = context;
  await using parts = new AsyncDisposableStack();
  const metrics = createMetrics();
  const filters = createFilters(configuration);
  const auth = await readBasicAuth(BASIC_AUTH_DIRECTORY);
  const tasks = createTaskGroup({ signal });

  const opened = await openStore(configuration, parts, { log, signal });
  const store = guard(opened.store, parts, { log, metrics });
  const swarm = parts.use(
    await openSwarm(
      { logger: log, metrics: createSwarmMetrics(metrics), bootstrap: [bootstrapSource(configuration, log)] },
      { routerAddress: configuration.routerAddr, dataDirectory: configuration.dataDir, signal },
    ),
  );
  if (configuration.httpBootstrapAddr !== undefined) {
    const { host = "::", port } = parseListenAddress(configuration.httpBootstrapAddr);
    parts.use(
      await serveBootstrapId({ peerId: swarm.peerId, addresses: () => swarm.addresses() }, { host, port }),
    );
  }

  const advertiser: Advertiser = createAdvertiser(
    { store, router: swarm, filters, metrics: createAdvertiseMetrics(metrics), log },
    {},
  );
  parts.use(tasks);
  tasks.run("advertise", (taskSignal) => advertiser.run({ signal: taskSignal }));

  const server = parts.use(
    await openRegistryServer(
      {
        store,
        router: swarm,
        filters,
        health: createPeerHealth({
          avoidMs: AVOID_PEER_MS,
          limit: MAX_AVOIDED_PEERS,
          now: () => performance.now(),
        }),
        metrics: createMirrorMetrics(metrics),
        log,
        ready: () => swarm.ready() && opened.connected() && advertiser.synced(),
        ...(auth === undefined ? {} : { auth }),
      },
      {
        address: configuration.registryAddr,
        lookupCount: configuration.mirrorResolveRetries,
        resolveTimeoutMs: parseDuration(configuration.mirrorResolveTimeout, "mirrorResolveTimeout"),
        hedgeAfterMs: HEDGE_AFTER_MS,
        answerTimeoutMs: ANSWER_TIMEOUT_MS,
        maxParallel: MAX_PARALLEL_PEERS,
        stallTimeoutMs: STALL_TIMEOUT_MS,
      },
    ),
  );
  metrics.observedGauge(
    { name: "spegel_store_connected", help: "1 while the content store answers, else 0." },
    () => Number(opened.connected()),
  );
  metrics.observedGauge(
    {
      name: "spegel_images_without_layers",
      help: "Images that this node cannot share because containerd discards unpacked layers.",
    },
    () => opened.imagesWithoutLayers(),
  );
  observeProcess(metrics);
  const metricsServer = parts.use(
    await openPlainServer(
      answerMetrics({ metrics, peerId: swarm.peerId, debugWeb: configuration.debugWebEnabled }),
      {
        address: configuration.metricsAddr,
        maxConnections: 32,
      },
    ),
  );
  log.info("Serving.", {
    registry: server.address,
    router: swarm.addresses(),
    metrics: metricsServer.address,
    store: store.name,
    peer: swarm.peerId,
  });

  const running = parts.move();
  return { finished: tasks.finished, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

interface OpenedStore {
  readonly store: ContentStore;
  /** False while whoever owns the content (containerd) does not answer. */
  connected(): boolean;
  /** Images whose layers whoever owns the content has thrown away. */
  imagesWithoutLayers(): number;
}

async function openStore(
  configuration: RegistryConfiguration,
  parts: AsyncDisposableStack,
  context: { readonly log: Logger; readonly signal: AbortSignal },
): Promise<OpenedStore> {
  const directory = /^oci-layout:(.+)$/.exec(configuration.store)?.[1];
  if (directory !== undefined) {
    return {
      store: await openOCILayoutStore({ directory }, { signal: context.signal }),
      connected: () => true,
      imagesWithoutLayers: () => 0,
    };
  }
  const store = parts.use(
    openContainerdStore(
      { log: context.log },
      {
        socketPath: configuration.containerdSock,
        namespaces: [...new Set([configuration.containerdNamespace, IMAGE_EXTRACTION_NAMESPACE])],
        contentPath: configuration.containerdContentPath,
      },
    ),
  );
  return {
    store,
    connected: () => store.connected(),
    imagesWithoutLayers: () => store.imagesWithoutLayers(),
  };
}

/** Content that does not hash to its digest is served once at most. */
function guard(
  store: ContentStore,
  parts: AsyncDisposableStack,
  context: { readonly log: Logger; readonly metrics: Metrics },
): GuardedStore {
  const guarded = parts.use(
    createGuardedStore(store, {
      onCorrupt: (digest) =>
        context.log.error(
          "Content does not hash to its digest; it is not served any more. Remove the image and pull it again.",
          {
            digest,
          },
        ),
    }),
  );
  context.metrics.observedGauge(
    { name: "spegel_corrupt_contents", help: "Contents of this node that do not hash to their digest." },
    () => guarded.corruptCount(),
  );
  return guarded;
}

/** The source that `--bootstrap-kind` names, with the flags it needs. */
function bootstrapSource(configuration: RegistryConfiguration, log: Logger): BootstrapSource {
  const defaultPort = parseListenAddress(configuration.routerAddr).port;
  const required = (flag: string, value: string | undefined): string => {
    if (value !== undefined && value !== "") return value;
    const message = `is required with --bootstrap-kind=${configuration.bootstrapKind}`;
    throw new ConfigError({ code: "CONFIG_INVALID", problems: [{ path: flag, message }] });
  };
  switch (configuration.bootstrapKind) {
    case "static":
      return createStaticBootstrap({ addresses: configuration.staticBootstrapPeers, defaultPort });
    case "dns":
      return createDnsBootstrap(
        {},
        { domain: required("--dns-bootstrap-domain", configuration.dnsBootstrapDomain), defaultPort },
      );
    case "http": {
      const { httpBootstrapPeer } = configuration;
      const url =
        configuration.httpBootstrapUrl ?? (httpBootstrapPeer && bootstrapPeerUrl(httpBootstrapPeer));
      return createHttpBootstrap(
        { logger: log },
        {
          url: required("--http-bootstrap-url", url),
          certificateDirectory: configuration.httpBootstrapCertDir,
          defaultPort,
          // Peers are always dialled directly.
          proxyEnvironment: process.env,
        },
      );
    }
    case "kubernetes":
      return createKubernetesBootstrap(
        { logger: log, openClient: () => openKubeClient(configuration.kubeconfigPath) },
        {
          namespace: configuration.leaderElectionNamespace,
          name: configuration.leaderElectionName,
          defaultPort,
        },
      );
  }
}

/** A kubeconfig file, else the service account of the pod; no other, so that the environment of a node decides nothing. */
async function openKubeClient(kubeconfigPath: string | undefined): Promise<KubeClient> {
  const { KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT } = process.env;
  const connection = await loadKubeConfig({
    env: { KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT },
    ...(kubeconfigPath !== undefined && kubeconfigPath !== "" && { path: kubeconfigPath }),
  });
  return createKubeClient(connection, {
    userAgent: "spegel",
    maxInFlight: 1,
    maxResponseBytes: MAX_KUBE_RESPONSE_BYTES,
  });
}

/** Memory and descriptors of this process, under names that cannot collide with node-exporter's `process_*`. */
function observeProcess(metrics: Metrics): void {
  metrics.observedGauge(
    { name: "spegel_process_resident_bytes", help: "Resident memory of the daemon." },
    () => process.memoryUsage.rss(),
  );
}
