// SPDX-License-Identifier: Apache-2.0
/**
 * A stand-in for gardener-resource-manager: applies ManagedResources, fills token secrets, collects garbage.
 *
 * It does what the contract says and nothing of how the real one does it: no patches of live objects, no health
 * checks of what it applied (a test says what is unhealthy), one instance for seed and Shoot.
 */
import { brotliDecompressSync } from "node:zlib";
import { parseAllDocuments } from "yaml";
import type { ManagedResource } from "#api/gardener";
import type { ApiObject, ApiServer } from "#kit/api-server";
import {
  createInformer,
  createKubeClient,
  createWorkQueue,
  type KubeClient,
  parseKey,
  parseKubeConfig,
  type Resource,
  SECRETS,
} from "#kube";
import { silentLogger } from "#log";

export interface ResourceManagerOptions {
  /** Where class-less ManagedResources go; default a Shoot that swallows everything. */
  readonly shoot?: ApiServer;
  /** Why a ManagedResource is not healthy; undefined: it is. Asked at each look. */
  readonly unhealthyReason?: (name: string) => string | undefined;
}

export interface ResourceManager extends AsyncDisposable {
  /** Objects of a ManagedResource as applied last. */
  applied(namespace: string, name: string): readonly ApiObject[];
  /** Deletes immutable secrets that nothing refers to, whatever their age; their names. */
  collectGarbage(): string[];
  /** Looks at everything again, e.g. after `unhealthyReason` changed its mind. */
  resync(): void;
}

const MANAGED_RESOURCES: Resource<ManagedResource> = {
  group: "resources.gardener.cloud",
  version: "v1alpha1",
  plural: "managedresources",
  kind: "ManagedResource",
  namespaced: true,
};
const FINALIZER = "resources.gardener.cloud/gardener-resource-manager";
const GARBAGE_LABEL = "resources.gardener.cloud/garbage-collectable-reference";
const REFERENCE_PREFIX = "reference.resources.gardener.cloud/secret-";
const TOKEN_PREFIX = "serviceaccount.resources.gardener.cloud";

export async function startResourceManager(
  seed: ApiServer,
  options: ResourceManagerOptions = {},
): Promise<ResourceManager> {
  const parts = new AsyncDisposableStack();
  const connection = await parseKubeConfig(seed.kubeconfig(), { directory: "/", source: "seed" });
  const client = parts.use(
    createKubeClient(connection, { userAgent: "resource-manager", requestsPerSecond: 10_000 }),
  );
  const applied = new Map<string, readonly ApiObject[]>();

  async function handle(key: string, signal: AbortSignal): Promise<void> {
    const name = parseKey(key) as { namespace: string; name: string };
    const resource = await client.find(MANAGED_RESOURCES, name, { signal });
    if (resource === undefined) return;
    const target = resource.spec.class === "seed" ? seed : options.shoot;
    if (resource.metadata.deletionTimestamp !== undefined) {
      if (resource.spec.keepObjects !== true) removeObjects(target, applied.get(key) ?? []);
      applied.delete(key);
      await client.mergePatch(MANAGED_RESOURCES, name, { metadata: { finalizers: null } }, { signal });
      return;
    }
    const finalizer = resource.spec.class === "seed" ? `${FINALIZER}-seed` : FINALIZER;
    if (!resource.metadata.finalizers?.includes(finalizer)) {
      await client.mergePatch(MANAGED_RESOURCES, name, { metadata: { finalizers: [finalizer] } }, { signal });
    }
    let problem: string | undefined;
    try {
      const objects = await readPayload(client, resource, signal);
      removeObjects(
        target,
        (applied.get(key) ?? []).filter((old) => !objects.some((each) => idOf(each) === idOf(old))),
      );
      const injected = objects.map((object) => withLabels(object, resource.spec.injectLabels));
      target?.seed(injected as Parameters<ApiServer["seed"]>[0]);
      applied.set(key, injected);
    } catch (error) {
      problem = (error as Error).message;
    }
    await client.mergePatchStatus(
      MANAGED_RESOURCES,
      name,
      { status: statusOf(resource, problem, options.unhealthyReason?.(resource.metadata.name)) },
      { signal },
    );
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
      { backoff: { initialMs: 1, maxMs: 50 }, drainMs: 0 },
    ),
  );
  const resources = parts.use(
    createInformer(
      { client, logger: silentLogger },
      {
        resource: MANAGED_RESOURCES,
        trim: ({ metadata }) => `${metadata.generation}/${metadata.deletionTimestamp ?? ""}`,
        backoff: { initialMs: 1, maxMs: 50 },
      },
    ),
  );
  resources.subscribe((event) => {
    if (event.type === "added" || (event.type === "modified" && event.object !== event.previous))
      queue.add(event.key);
  });
  const tokens = parts.use(
    createInformer(
      { client, logger: silentLogger },
      {
        resource: SECRETS,
        labelSelector: "resources.gardener.cloud/purpose=token-requestor",
        trim: (secret) => secret,
        backoff: { initialMs: 1, maxMs: 50 },
      },
    ),
  );
  tokens.subscribe((event) => {
    if (event.type === "deleted" || event.object.data?.["token"] !== undefined) return;
    const { namespace = "", name, annotations = {} } = event.object.metadata;
    const account = `${annotations[`${TOKEN_PREFIX}/namespace`]}:${annotations[`${TOKEN_PREFIX}/name`]}`;
    const token = `token-of-${account}`;
    options.shoot?.addUser({ name: `system:serviceaccount:${account}`, token, rules: [NODE_READER] });
    const patch = {
      metadata: { annotations: { [`${TOKEN_PREFIX}/token-renew-timestamp`]: "2030-01-01T00:00:00Z" } },
      data: { token: Buffer.from(token).toString("base64") },
    };
    void client
      .mergePatch(SECRETS, { namespace, name }, patch, { signal: AbortSignal.timeout(10_000) })
      .catch(() => {});
  });
  return {
    applied: (namespace, name) => applied.get(`${namespace}/${name}`) ?? [],
    collectGarbage: () => collectGarbage(seed),
    resync: () => {
      for (const resource of seed.list("ManagedResource")) {
        queue.add(`${resource.metadata.namespace}/${resource.metadata.name}`);
      }
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

const NODE_READER = { apiGroups: [""], resources: ["nodes"], verbs: ["get", "list", "watch"] };

async function readPayload(
  client: KubeClient,
  resource: ManagedResource,
  signal: AbortSignal,
): Promise<ApiObject[]> {
  const objects: ApiObject[] = [];
  for (const { name } of resource.spec.secretRefs) {
    const namespace = resource.metadata.namespace as string;
    const secret = await client.get(SECRETS, { namespace, name }, { signal });
    for (const [key, value] of Object.entries(secret.data ?? {})) {
      const bytes = Buffer.from(value, "base64");
      const text = (key.endsWith(".br") ? brotliDecompressSync(bytes) : bytes).toString("utf8");
      // The real one reads YAML 1.1.
      for (const document of parseAllDocuments(text, { version: "1.1" }))
        objects.push(document.toJS() as ApiObject);
    }
  }
  return objects;
}

function statusOf(
  resource: ManagedResource,
  problem: string | undefined,
  unhealthy: string | undefined,
): object {
  const condition = (type: string, isTrue: boolean, message = "ok"): object => ({
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

function withLabels(object: ApiObject, labels: Readonly<Record<string, string>> | undefined): ApiObject {
  return { ...object, metadata: { ...object.metadata, labels: { ...object.metadata.labels, ...labels } } };
}

function removeObjects(target: ApiServer | undefined, objects: readonly ApiObject[]): void {
  for (const { kind, metadata } of objects) target?.remove(kind, metadata.name, metadata.namespace);
}

const idOf = ({ kind, metadata }: ApiObject): string =>
  `${kind}/${metadata.namespace ?? ""}/${metadata.name}`;

function collectGarbage(seed: ApiServer): string[] {
  const used = new Set<string>();
  for (const kind of ["ManagedResource", "Deployment"]) {
    for (const { metadata } of seed.list(kind)) {
      for (const [key, name] of Object.entries(metadata.annotations ?? {})) {
        if (key.startsWith(REFERENCE_PREFIX)) used.add(`${metadata.namespace}/${name}`);
      }
    }
  }
  const garbage = seed
    .list("Secret")
    .filter(
      ({ metadata }) =>
        metadata.labels?.[GARBAGE_LABEL] === "true" && !used.has(`${metadata.namespace}/${metadata.name}`),
    );
  for (const { metadata } of garbage) seed.remove("Secret", metadata.name, metadata.namespace);
  return garbage.map(({ metadata }) => metadata.name);
}
