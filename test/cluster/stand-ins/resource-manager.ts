// SPDX-License-Identifier: Apache-2.0
/**
 * A stand-in for gardener-resource-manager, of the seed and of the Shoot in one, on real API servers: it applies
 * ManagedResources, requests tokens for shoot access, and collects garbage. What it applied counts as healthy
 * unless a test says otherwise, because nothing here starts pods.
 */
import { brotliDecompressSync } from "node:zlib";
import { parseAllDocuments } from "yaml";
import type { ManagedResource } from "#api/gardener";
import { MANAGED_RESOURCES } from "#extension";
import { createInformer, createKubeClient, createWorkQueue, parseKey, parseKubeConfig, SECRETS } from "#kube";
import { silentLogger } from "#log";
import type { AnyObject, KubeAPIServer, RawClient } from "../../kit/kube-parts/index.ts";

export interface ResourceManager extends AsyncDisposable {
  /** Why ManagedResources are not healthy, by their name; seen at the next `resync`. */
  readonly unhealthy: Map<string, string>;
  /** Looks at all ManagedResources again. */
  resync(): Promise<void>;
  /** Deletes immutable Secrets that nothing refers to, whatever their age; their names. */
  collectGarbage(namespace: string): Promise<string[]>;
}

interface Cluster {
  readonly server: KubeAPIServer;
  readonly admin: RawClient;
}

const MANAGER = "gardener-resource-manager";
const FINALIZER = "resources.gardener.cloud/gardener-resource-manager";
const GARBAGE_LABEL = "resources.gardener.cloud/garbage-collectable-reference";
const REFERENCE_PREFIX = "reference.resources.gardener.cloud/secret-";
const TOKEN_PREFIX = "serviceaccount.resources.gardener.cloud";
const BACKOFF = { initialMs: 10, maxMs: 200 };

export async function startResourceManager(seed: Cluster, shoot: Cluster): Promise<ResourceManager> {
  const parts = new AsyncDisposableStack();
  const client = parts.use(
    createKubeClient(
      {
        ...(await parseKubeConfig(MINIMAL_KUBECONFIG, { directory: "/", source: "resource manager" })),
        server: new URL(seed.server.url),
        authoritiesPem: seed.server.caCertificate,
        credential: { kind: "token", token: seed.server.token },
      },
      { userAgent: MANAGER, requestsPerSecond: 10_000 },
    ),
  );
  const applied = new Map<string, readonly AnyObject[]>();
  const unhealthy = new Map<string, string>();

  async function handle(key: string, signal: AbortSignal): Promise<void> {
    const name = parseKey(key) as { namespace: string; name: string };
    const resource = await client.find(MANAGED_RESOURCES, name, { signal });
    if (resource === undefined) return;
    const target = resource.spec.class === "seed" ? seed.admin : shoot.admin;
    const finalizer = resource.spec.class === "seed" ? `${FINALIZER}-seed` : FINALIZER;
    if (resource.metadata.deletionTimestamp !== undefined) {
      if (resource.spec.keepObjects !== true) await remove(target, applied.get(key) ?? []);
      applied.delete(key);
      await client.mergePatch(MANAGED_RESOURCES, name, { metadata: { finalizers: null } }, { signal });
      return;
    }
    if (!resource.metadata.finalizers?.includes(finalizer)) {
      await client.mergePatch(MANAGED_RESOURCES, name, { metadata: { finalizers: [finalizer] } }, { signal });
    }
    let problem: string | undefined;
    try {
      const objects = await readPayload(resource, signal);
      const gone = (applied.get(key) ?? []).filter(
        (old) => !objects.some((each) => idOf(each) === idOf(old)),
      );
      await remove(target, gone);
      for (const object of objects) await target.apply(labelled(object, resource), MANAGER);
      applied.set(key, objects);
    } catch (error) {
      problem = (error as Error).message;
    }
    const status = statusOf(resource, problem, unhealthy.get(name.name));
    await client.mergePatchStatus(MANAGED_RESOURCES, name, { status }, { signal });
  }

  async function readPayload(resource: ManagedResource, signal: AbortSignal): Promise<AnyObject[]> {
    const objects: AnyObject[] = [];
    for (const { name } of resource.spec.secretRefs) {
      const secret = await client.get(
        SECRETS,
        { namespace: resource.metadata.namespace as string, name },
        { signal },
      );
      for (const [key, value] of Object.entries(secret.data ?? {})) {
        const bytes = Buffer.from(value, "base64");
        const text = (key.endsWith(".br") ? brotliDecompressSync(bytes) : bytes).toString("utf8");
        // The real one reads YAML 1.1.
        for (const document of parseAllDocuments(text, { version: "1.1" }))
          objects.push(document.toJS() as AnyObject);
      }
    }
    return objects;
  }

  const queue = parts.use(
    createWorkQueue(
      {
        handle: async (key, { signal }) => {
          await handle(key, signal);
          return undefined;
        },
        logger: silentLogger,
      },
      { backoff: BACKOFF, drainMs: 0 },
    ),
  );
  const resources = parts.use(
    createInformer(
      { client, logger: silentLogger },
      {
        resource: MANAGED_RESOURCES,
        trim: ({ metadata }) => `${metadata.generation}/${metadata.deletionTimestamp ?? ""}`,
        backoff: BACKOFF,
      },
    ),
  );
  resources.subscribe((event) => {
    if (event.type === "added" || (event.type === "modified" && event.object !== event.previous))
      queue.add(event.key);
  });
  const tokenQueue = parts.use(
    createWorkQueue(
      {
        handle: async (key, { signal }) => {
          const name = parseKey(key) as { namespace: string; name: string };
          const secret = await client.find(SECRETS, name, { signal });
          const annotations = secret?.metadata.annotations ?? {};
          if (secret === undefined || secret.data?.["token"] !== undefined) return undefined;
          const token = await shoot.admin.requestToken({
            namespace: annotations[`${TOKEN_PREFIX}/namespace`] ?? "",
            name: annotations[`${TOKEN_PREFIX}/name`] ?? "",
          });
          const renewal = new Date(Date.now() + 3_000_000).toISOString();
          const patch = {
            metadata: { annotations: { [`${TOKEN_PREFIX}/token-renew-timestamp`]: renewal } },
            data: { token: Buffer.from(token).toString("base64") },
          };
          await client.mergePatch(SECRETS, name, patch, { signal });
          return undefined;
        },
        logger: silentLogger,
      },
      { backoff: BACKOFF, drainMs: 0 },
    ),
  );
  const tokens = parts.use(
    createInformer(
      { client, logger: silentLogger },
      {
        resource: SECRETS,
        labelSelector:
          "resources.gardener.cloud/purpose=token-requestor,resources.gardener.cloud/class=shoot",
        trim: () => true,
        backoff: BACKOFF,
      },
    ),
  );
  tokens.subscribe((event) => {
    if (event.type === "added") tokenQueue.add(event.key);
  });
  return {
    unhealthy,
    async resync() {
      for (const { metadata } of await seed.admin.list(
        "resources.gardener.cloud/v1alpha1",
        "ManagedResource",
      )) {
        queue.add(`${metadata.namespace}/${metadata.name}`);
      }
    },
    collectGarbage: (namespace) => collectGarbage(seed.admin, namespace),
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

const MINIMAL_KUBECONFIG = JSON.stringify({
  "current-context": "a",
  clusters: [{ name: "a", cluster: { server: "https://127.0.0.1" } }],
  contexts: [{ name: "a", context: { cluster: "a" } }],
});

function labelled(object: AnyObject, resource: ManagedResource): AnyObject {
  const labels = {
    ...object.metadata.labels,
    ...resource.spec.injectLabels,
    "resources.gardener.cloud/managed-by": "gardener",
  };
  return { ...object, metadata: { ...object.metadata, labels } };
}

async function remove(target: RawClient, objects: readonly AnyObject[]): Promise<void> {
  for (const object of objects) await target.delete(object);
}

function statusOf(
  resource: ManagedResource,
  problem: string | undefined,
  unhealthy: string | undefined,
): object {
  const condition = (type: string, isTrue: boolean, message = "as it should be"): object => ({
    type,
    status: isTrue ? "True" : "False",
    reason: "StandIn",
    message,
    lastUpdateTime: "2026-01-01T00:00:00Z",
    lastTransitionTime: "2026-01-01T00:00:00Z",
  });
  return {
    observedGeneration: resource.metadata.generation,
    conditions: [
      condition("ResourcesApplied", problem === undefined, problem),
      condition("ResourcesHealthy", problem === undefined && unhealthy === undefined, unhealthy),
      condition("ResourcesProgressing", false),
    ],
  };
}

const idOf = ({ kind, metadata }: AnyObject): string =>
  `${kind}/${metadata.namespace ?? ""}/${metadata.name}`;

async function collectGarbage(seed: RawClient, namespace: string): Promise<string[]> {
  const owners = [
    ...(await seed.list("resources.gardener.cloud/v1alpha1", "ManagedResource", namespace)),
    ...(await seed.list("apps/v1", "Deployment", namespace)),
  ];
  const used = new Set(
    owners.flatMap(({ metadata }) =>
      Object.entries(metadata.annotations ?? {})
        .filter(([key]) => key.startsWith(REFERENCE_PREFIX))
        .map(([, name]) => name),
    ),
  );
  const secrets = await seed.list("v1", "Secret", namespace);
  const garbage = secrets.filter(
    ({ metadata }) => metadata.labels?.[GARBAGE_LABEL] === "true" && !used.has(metadata.name),
  );
  await remove(seed, garbage);
  return garbage.map(({ metadata }) => metadata.name);
}
