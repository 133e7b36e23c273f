// SPDX-License-Identifier: Apache-2.0
import type { Cluster, Extension } from "#api/gardener";
import { CLUSTERS, EXTENSION_TYPE, EXTENSIONS, isSettled, requestedAtMs } from "#extension";
import { createInformer, type Informer, type KubeClient } from "#kube";
import type { Logger } from "#log";
import type { ClusterView, ExtensionView, LoadContext } from "#osc";

/** Cluster and Extension of a namespace, for the webhook. */
export interface OSCContextReader extends AsyncDisposable {
  readonly load: LoadContext;
  readonly clusters: Pick<Informer<ClusterView>, "hasSynced" | "size">;
  readonly extensions: Pick<Informer<SettledExtension>, "hasSynced" | "size">;
}

/** An Extension that nobody is about to change, and when gardenlet asked for what its status says. */
interface SettledExtension extends ExtensionView {
  readonly requestedAtMs: number;
}

/** Within one reconciliation of a Shoot gardenlet writes first the Extension, then the node configurations. */
const RECONCILIATION_MS = 900_000;
/** Bookmarks come about each minute: a watch that is silent for longer may be dead. */
const MAX_SILENCE_MS = 90_000;

/**
 * Clusters and Extensions come from caches of the few fields that are read: in a reconciliation that goes well no
 * request to the API server is on the way.
 *
 * gardenlet writes node configurations right after it saw the Extension succeed, and a cache may lag behind or hang
 * on a dead connection. So a cached Extension counts only when the API server was heard of lately, when the status
 * answers the last request that the Extension carries, and when that request belongs to the reconciliation that wrote
 * the node configuration, by gardenlet's own timestamps in both. Everything else is read live.
 */
export function createOSCContextReader(deps: {
  readonly client: KubeClient;
  readonly logger: Logger;
  /** Milliseconds since 1970; default Date.now. */
  readonly now?: () => number;
}): OSCContextReader {
  const now = deps.now ?? Date.now;
  const clusters = createInformer(deps, { resource: CLUSTERS, trim: viewOf, pageSize: 50 });
  const extensions = createInformer(deps, { resource: EXTENSIONS, trim: settledOf });

  async function readExtension(
    namespace: string,
    osc: Parameters<LoadContext>[1],
    options: Parameters<LoadContext>[2],
  ): Promise<ExtensionView | undefined> {
    const cached = extensions.get(`${namespace}/${EXTENSION_TYPE}`);
    // False when either of them does not say when.
    const isOfThisTime = requestedAtMs(osc) - (cached?.requestedAtMs ?? Number.NaN) < RECONCILIATION_MS;
    const isHeard = now() - extensions.lastHeardMs < MAX_SILENCE_MS;
    if (cached !== undefined && isOfThisTime && isHeard) return cached;
    return await deps.client.find(EXTENSIONS, { namespace, name: EXTENSION_TYPE }, options);
  }

  return {
    clusters,
    extensions,
    async load(namespace, osc, options) {
      const cluster = clusters.get(namespace) ?? (await readCluster(deps.client, namespace, options));
      if (cluster === undefined) return undefined;
      return { cluster, extension: await readExtension(namespace, osc, options) };
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([clusters[Symbol.asyncDispose](), extensions[Symbol.asyncDispose]()]);
    },
  };
}

function settledOf(extension: Extension): SettledExtension | undefined {
  if (extension.spec?.type !== EXTENSION_TYPE || !isSettled(extension)) return undefined;
  const { providerStatus } = extension.status ?? {};
  return { status: { providerStatus }, requestedAtMs: requestedAtMs(extension) };
}

async function readCluster(
  client: KubeClient,
  name: string,
  options: Parameters<LoadContext>[2],
): Promise<ClusterView | undefined> {
  const cluster = await client.find(CLUSTERS, { name }, options);
  return cluster && viewOf(cluster);
}

function viewOf(cluster: Cluster): ClusterView {
  const shoot = cluster.spec?.shoot;
  const deletionTimestamp = shoot?.metadata?.deletionTimestamp;
  const workers = shoot?.spec?.provider?.workers ?? [];
  const hostsItself = workers.some(
    (worker) => worker?.controlPlane !== undefined && worker.controlPlane !== null,
  );
  return {
    spec: {
      seed: cluster.spec?.seed ? {} : null,
      shoot: shoot
        ? {
            metadata: { ...(deletionTimestamp !== undefined && { deletionTimestamp }) },
            spec: {
              hibernation: { enabled: shoot.spec?.hibernation?.enabled === true },
              ...(hostsItself && { provider: { workers: [{ controlPlane: {} }] } }),
            },
          }
        : null,
    },
  };
}
