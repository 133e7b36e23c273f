// SPDX-License-Identifier: Apache-2.0
import type { Cluster } from "#api/gardener";
import { CLUSTERS, EXTENSION_TYPE, EXTENSIONS } from "#extension";
import { createInformer, type Informer, type KubeClient } from "#kube";
import type { Logger } from "#log";
import type { ClusterView, LoadContext } from "#osc";

/** Cluster and Extension of a namespace, for the webhook. */
export interface OSCContextReader extends AsyncDisposable {
  readonly load: LoadContext;
  readonly clusters: Pick<Informer<ClusterView>, "hasSynced" | "size">;
}

/**
 * Clusters come from a cache of the few fields that are read, and live when it does not have them yet. The Extension
 * is always read live: gardenlet writes node configurations within seconds of its reconciliation.
 */
export function createOSCContextReader(deps: {
  readonly client: KubeClient;
  readonly logger: Logger;
}): OSCContextReader {
  const clusters = createInformer(deps, { resource: CLUSTERS, trim: viewOf, pageSize: 50 });
  return {
    clusters,
    async load(namespace, { signal }) {
      const cluster = clusters.get(namespace) ?? (await readCluster(deps.client, namespace, signal));
      if (cluster === undefined) return undefined;
      const extension = await deps.client.find(EXTENSIONS, { namespace, name: EXTENSION_TYPE }, { signal });
      return { cluster, extension };
    },
    [Symbol.asyncDispose]: () => clusters[Symbol.asyncDispose](),
  };
}

async function readCluster(
  client: KubeClient,
  name: string,
  signal: AbortSignal,
): Promise<ClusterView | undefined> {
  const cluster = await client.find(CLUSTERS, { name }, { signal });
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
