// SPDX-License-Identifier: Apache-2.0
/**
 * A stand-in for gardenlet: namespaces, Clusters, Extensions with their annotations, node configurations that are
 * written from scratch each time, and its idea of when an Extension is ready.
 */
import { randomBytes } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { Cluster, Extension, OperatingSystemConfig } from "#api/gardener";
import { sleep } from "#async";
import { CLUSTERS, EXTENSION_TYPE, EXTENSIONS } from "#extension";
import { readManifests } from "#kit/api-server";
import { type KubeClient, type KubeObject, NAMESPACES, type Resource, SECRETS } from "#kube";

/** Changes a copy of the Cluster of example/cluster.yaml. */
export type ClusterChange = (cluster: MutableCluster) => void;

export interface MutableCluster {
  metadata: { name: string; annotations: Record<string, string> };
  spec: {
    cloudProfile: object;
    seed?: { metadata: { name: string }; spec: { ingress?: { domain: string } } };
    shoot: {
      metadata: {
        name: string;
        namespace: string;
        deletionTimestamp?: string;
        annotations?: Record<string, string>;
      };
      spec: { networking: object; hibernation?: { enabled: boolean }; provider: { workers: object[] } };
      status: Record<string, unknown>;
    };
  };
}

export interface Gardenlet {
  readonly client: KubeClient;
  /** Namespace and Cluster of a new Shoot, not enabled yet; the namespace. */
  addShoot(change?: ClusterChange): Promise<string>;
  /** Writes the Cluster anew, as at the start of every reconciliation. */
  syncCluster(namespace: string, change?: ClusterChange): Promise<void>;
  /** Labels the namespace, and has the Extension reconciled as if it had been written by a Shoot's owner. */
  enable(namespace: string, providerConfig?: object): Promise<void>;
  /** Writes the Extension with the operation annotation. */
  deploy(
    namespace: string,
    operation?: "reconcile" | "migrate" | "restore",
    providerConfig?: object,
  ): Promise<void>;
  /** The Extension once it is ready for what was asked last. */
  awaitReady(namespace: string): Promise<Extension>;
  /** The Extension once the predicate holds. */
  awaitExtension(namespace: string, holds: (extension: Extension) => boolean): Promise<Extension>;
  extension(namespace: string): Promise<Extension | undefined>;
  /** Takes the label away, deletes the Extension and waits until it is gone, as for a living Shoot. */
  disable(namespace: string): Promise<void>;
  deleteExtension(namespace: string): Promise<void>;
  /** Writes the node configuration of a worker pool; as it was stored. */
  writeOSC(
    namespace: string,
    options?: { readonly pool?: string; readonly purpose?: "provision" | "reconcile" },
  ): Promise<OperatingSystemConfig>;
  /** The decoded data of a Secret of a Shoot's namespace. */
  secretData(namespace: string, name: string): Promise<Record<string, Buffer> | undefined>;
}

export const OSCS: Resource<OperatingSystemConfig & KubeObject> = {
  group: "extensions.gardener.cloud",
  version: "v1alpha1",
  plural: "operatingsystemconfigs",
  kind: "OperatingSystemConfig",
  namespaced: true,
};

const EXAMPLES = new URL("../../../example/", import.meta.url);
const POLL_INTERVAL_MS = 25;
const READY_TIMEOUT_MS = 60_000;
const LABEL = `extensions.gardener.cloud/${EXTENSION_TYPE}`;
const OPERATION = "gardener.cloud/operation";
const TIMESTAMP = "gardener.cloud/timestamp";

async function readExample<T>(name: string): Promise<T> {
  return (await readManifests(new URL(name, EXAMPLES)))[0] as T;
}

export function createGardenlet(
  client: KubeClient,
  options: { readonly signal: AbortSignal; readonly readyTimeoutMs?: number },
): Gardenlet {
  const cancel = { signal: options.signal };

  async function clusterOf(namespace: string, change: ClusterChange): Promise<MutableCluster> {
    const cluster = await readExample<MutableCluster>("cluster.yaml");
    cluster.metadata.name = namespace;
    cluster.spec.shoot.status["technicalID"] = namespace;
    change(cluster);
    return cluster;
  }

  async function extension(namespace: string): Promise<Extension | undefined> {
    return await client.find(EXTENSIONS, { namespace, name: EXTENSION_TYPE }, cancel);
  }

  async function deploy(
    namespace: string,
    operation: "reconcile" | "migrate" | "restore" = "reconcile",
    providerConfig?: object,
  ): Promise<void> {
    const annotations = { [OPERATION]: operation, [TIMESTAMP]: nanosecondTime() };
    const metadata = { name: EXTENSION_TYPE, namespace, annotations };
    const present = await extension(namespace);
    if (present === undefined) {
      const spec = { type: EXTENSION_TYPE, ...(providerConfig && { providerConfig }) };
      await client.create(EXTENSIONS, { metadata, spec }, cancel);
      return;
    }
    // Times are compared by seconds: within one of them an old success would look like a new one.
    const lastMs = Date.parse(present.status?.lastOperation?.lastUpdateTime ?? "1970");
    const untilMs = Math.min(lastMs, Date.now()) + 1000;
    while (Date.now() < untilMs) await sleep(POLL_INTERVAL_MS, cancel);
    annotations[TIMESTAMP] = nanosecondTime();
    const spec = mergePatch(present.spec, { ...present.spec, providerConfig });
    await client.mergePatch(
      EXTENSIONS,
      metadata,
      { metadata: { annotations }, ...(spec !== undefined && { spec }) },
      cancel,
    );
  }

  async function poll<T>(what: () => Promise<string>, read: () => Promise<T | undefined>): Promise<T> {
    const deadline = performance.now() + (options.readyTimeoutMs ?? READY_TIMEOUT_MS);
    for (;;) {
      const found = await read();
      if (found !== undefined) return found;
      if (performance.now() > deadline) throw new Error(await what());
      await sleep(POLL_INTERVAL_MS, cancel);
    }
  }

  function awaitExtension(namespace: string, holds: (extension: Extension) => boolean): Promise<Extension> {
    return poll(
      async () => `Extension in ${namespace}: ${JSON.stringify(await extension(namespace))}`,
      async () => {
        const present = await extension(namespace);
        return present !== undefined && holds(present) ? present : undefined;
      },
    );
  }

  async function label(namespace: string, value: "true" | null): Promise<void> {
    await client.mergePatch(
      NAMESPACES,
      { name: namespace },
      { metadata: { labels: { [LABEL]: value } } },
      cancel,
    );
  }

  async function deleteExtension(namespace: string): Promise<void> {
    await client.delete(EXTENSIONS, { namespace, name: EXTENSION_TYPE }, cancel);
    await poll(
      async () => `the Extension in ${namespace} is not gone: ${JSON.stringify(await extension(namespace))}`,
      async () => ((await extension(namespace)) === undefined ? true : undefined),
    );
  }

  return {
    client,
    extension,
    deploy,
    awaitExtension,
    deleteExtension,
    async addShoot(change = () => {}) {
      const namespace = `shoot--foo--${randomBytes(4).toString("hex")}`;
      const labels = { "gardener.cloud/role": "shoot" };
      await client.create(NAMESPACES, { metadata: { name: namespace, labels } }, cancel);
      await client.create(CLUSTERS, (await clusterOf(namespace, change)) as unknown as Cluster, cancel);
      return namespace;
    },
    async syncCluster(namespace, change = () => {}) {
      const { resourceVersion } = (await client.get(CLUSTERS, { name: namespace }, cancel)).metadata;
      const cluster = await clusterOf(namespace, change);
      const metadata = { ...cluster.metadata, resourceVersion };
      await client.replace(CLUSTERS, { ...cluster, metadata } as unknown as Cluster, cancel);
    },
    async enable(namespace, providerConfig) {
      await label(namespace, "true");
      await deploy(namespace, "reconcile", providerConfig);
    },
    awaitReady: (namespace) => awaitExtension(namespace, isReady),
    async disable(namespace) {
      await label(namespace, null);
      await deleteExtension(namespace);
    },
    async writeOSC(namespace, { pool = "local", purpose = "reconcile" } = {}) {
      const original = await readExample<OperatingSystemConfig>(`osc-${purpose}.yaml`);
      const name = `gardener-node-agent-${pool}-6f7f8a9b0c1d2e3f-${purpose === "provision" ? "init" : "original"}`;
      const annotations = { [OPERATION]: "reconcile", [TIMESTAMP]: nanosecondTime() };
      const metadata = { ...original.metadata, name, namespace, annotations };
      const wanted = { ...original, metadata, spec: fresh(original.spec) };
      const present = await client.find(OSCS, { namespace, name }, cancel);
      if (present === undefined) return await client.create(OSCS, wanted, cancel);
      const spec = mergePatch(present.spec, wanted.spec);
      return await client.mergePatch(
        OSCS,
        { namespace, name },
        { metadata: { annotations }, ...(spec !== undefined && { spec }) },
        cancel,
      );
    },
    async secretData(namespace, name) {
      const secret = await client.find(SECRETS, { namespace, name }, cancel);
      if (secret === undefined) return undefined;
      const entries = Object.entries(secret.data ?? {});
      return Object.fromEntries(entries.map(([key, value]) => [key, Buffer.from(value, "base64")]));
    },
  };
}

/** What gardenlet puts into a node configuration: of containerd just the sandbox image, and no one else's registries. */
function fresh(spec: OperatingSystemConfig["spec"]): OperatingSystemConfig["spec"] {
  const { criConfig } = spec;
  if (!criConfig?.containerd) return spec;
  return {
    ...spec,
    criConfig: { ...criConfig, containerd: { sandboxImage: criConfig.containerd.sandboxImage } },
  };
}

/** Ready as gardenlet sees it (pkg/utils/kubernetes/health, CheckExtensionObject). */
function isReady(extension: Extension): boolean {
  const { metadata, status } = extension;
  const timestamp = metadata.annotations?.[TIMESTAMP];
  return (
    status !== undefined &&
    status.lastError === undefined &&
    status.observedGeneration === metadata.generation &&
    metadata.annotations?.[OPERATION] === undefined &&
    status.lastOperation?.state === "Succeeded" &&
    (timestamp === undefined ||
      Date.parse(status.lastOperation.lastUpdateTime) >= Math.floor(Date.parse(timestamp) / 1000) * 1000)
  );
}

/** RFC 3339 with nanoseconds, as Go writes it. */
function nanosecondTime(): string {
  return new Date().toISOString().replace("Z", "000001Z");
}

/** The RFC 7386 patch that makes `to` of `from`; undefined when they are equal. */
function mergePatch(from: unknown, to: unknown): unknown {
  if (isDeepStrictEqual(from, to)) return undefined;
  if (!isRecord(from) || !isRecord(to)) return to;
  const gone = Object.keys(from).filter((key) => from[key] !== undefined && to[key] === undefined);
  const changed = Object.keys(to).flatMap((key) => {
    if (to[key] === undefined) return [];
    const patch = mergePatch(from[key], to[key]);
    return patch === undefined ? [] : [[key, patch] as const];
  });
  return { ...Object.fromEntries(gone.map((key) => [key, null])), ...Object.fromEntries(changed) };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
