// SPDX-License-Identifier: Apache-2.0
import { brotliDecompressSync } from "node:zlib";
import { parseAllDocuments } from "yaml";
import type { ManagedResource } from "#api/gardener";
import {
  createInformer,
  createWorkQueue,
  type KubeClient,
  type ObjectName,
  parseKey,
  type Resource,
  SECRETS,
  type WorkQueue,
} from "#kube";
import { silentLogger } from "#log";

/** An object of a payload. */
export interface AppliedObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
}

/** A cluster that ManagedResources go to. */
export interface ResourceTarget {
  apply(object: AppliedObject): Promise<void> | void;
  remove(object: AppliedObject): Promise<void> | void;
}

export interface ResourceManagerDeps {
  /** Of the seed. */
  readonly client: KubeClient;
  readonly seed: ResourceTarget;
  readonly shoot: ResourceTarget;
  /** A token of a ServiceAccount of the Shoot. */
  requestToken(account: { readonly namespace: string; readonly name: string }): Promise<string> | string;
  /** Why a ManagedResource is not healthy; undefined: it is. Asked at each look. */
  unhealthyReason(name: string): string | undefined;
  /** True while the Shoot of a namespace sleeps: its own resource manager is scaled down. Default: never. */
  isAsleep?(namespace: string): boolean;
}

export interface RunningResourceManager extends AsyncDisposable {
  /** Objects of a ManagedResource as applied last, by `namespace/name`. */
  readonly applied: ReadonlyMap<string, readonly AppliedObject[]>;
  /** Looks at a ManagedResource again, by `namespace/name`. */
  look(key: string): void;
}

type Named = Required<ObjectName>;

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
const TOKEN_SECRETS = "resources.gardener.cloud/purpose=token-requestor,resources.gardener.cloud/class=shoot";
const BACKOFF = { initialMs: 10, maxMs: 200 };

/** Applies ManagedResources and fills token secrets, until disposed. */
export function runResourceManager(deps: ResourceManagerDeps): RunningResourceManager {
  const { client } = deps;
  const parts = new AsyncDisposableStack();
  const applied = new Map<string, readonly AppliedObject[]>();

  async function handle(name: Named, signal: AbortSignal): Promise<void> {
    const key = `${name.namespace}/${name.name}`;
    const resource = await client.find(MANAGED_RESOURCES, name, { signal });
    if (resource === undefined) return;
    const isSeed = resource.spec.class === "seed";
    if (!isSeed && deps.isAsleep?.(name.namespace)) return;
    const target = isSeed ? deps.seed : deps.shoot;
    if (resource.metadata.deletionTimestamp !== undefined) {
      if (resource.spec.keepObjects !== true) await removeAll(target, applied.get(key) ?? []);
      applied.delete(key);
      await client.mergePatch(MANAGED_RESOURCES, name, { metadata: { finalizers: null } }, { signal });
      return;
    }
    const finalizer = isSeed ? `${FINALIZER}-seed` : FINALIZER;
    if (!resource.metadata.finalizers?.includes(finalizer)) {
      await client.mergePatch(MANAGED_RESOURCES, name, { metadata: { finalizers: [finalizer] } }, { signal });
    }
    let problem: string | undefined;
    try {
      const objects = await readPayload(client, resource, signal);
      const gone = (applied.get(key) ?? []).filter(
        (old) => !objects.some((each) => idOf(each) === idOf(old)),
      );
      await removeAll(target, gone);
      for (const object of objects) await target.apply(object);
      applied.set(key, objects);
    } catch (error) {
      problem = (error as Error).message;
    }
    const status = statusOf(resource, problem, deps.unhealthyReason(name.name));
    await client.mergePatchStatus(MANAGED_RESOURCES, name, { status }, { signal });
  }

  async function fillToken(name: Named, signal: AbortSignal): Promise<void> {
    if (deps.isAsleep?.(name.namespace)) return;
    const secret = await client.find(SECRETS, name, { signal });
    const annotations = secret?.metadata.annotations ?? {};
    if (secret === undefined || secret.data?.["token"] !== undefined) return;
    const token = await deps.requestToken({
      namespace: annotations[`${TOKEN_PREFIX}/namespace`] ?? "",
      name: annotations[`${TOKEN_PREFIX}/name`] ?? "",
    });
    const renewal = new Date(Date.now() + 3_000_000).toISOString();
    const patch = {
      metadata: { annotations: { [`${TOKEN_PREFIX}/token-renew-timestamp`]: renewal } },
      data: { token: Buffer.from(token).toString("base64") },
    };
    await client.mergePatch(SECRETS, name, patch, { signal });
  }

  const resources = parts.use(openQueue(handle));
  const tokens = parts.use(openQueue(fillToken));
  const watched = parts.use(
    createInformer(
      { client, logger: silentLogger },
      {
        resource: MANAGED_RESOURCES,
        trim: ({ metadata }) => `${metadata.generation}/${metadata.deletionTimestamp ?? ""}`,
        backoff: BACKOFF,
      },
    ),
  );
  watched.subscribe((event) => {
    if (event.type === "added" || (event.type === "modified" && event.object !== event.previous))
      resources.add(event.key);
  });
  const wanted = parts.use(
    createInformer(
      { client, logger: silentLogger },
      { resource: SECRETS, labelSelector: TOKEN_SECRETS, trim: () => true, backoff: BACKOFF },
    ),
  );
  wanted.subscribe((event) => {
    if (event.type === "added") tokens.add(event.key);
  });
  return {
    applied,
    look: (key) => resources.add(key),
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

function openQueue(handle: (name: Named, signal: AbortSignal) => Promise<void>): WorkQueue {
  return createWorkQueue(
    {
      async handle(key, { signal }) {
        await handle(parseKey(key) as Named, signal);
        return undefined;
      },
      logger: silentLogger,
    },
    { backoff: BACKOFF, drainMs: 0 },
  );
}

async function readPayload(
  client: KubeClient,
  resource: ManagedResource,
  signal: AbortSignal,
): Promise<AppliedObject[]> {
  const objects: AppliedObject[] = [];
  for (const { name } of resource.spec.secretRefs) {
    const namespace = resource.metadata.namespace as string;
    const secret = await client.get(SECRETS, { namespace, name }, { signal });
    for (const [key, value] of Object.entries(secret.data ?? {})) {
      const bytes = Buffer.from(value, "base64");
      const text = (key.endsWith(".br") ? brotliDecompressSync(bytes) : bytes).toString("utf8");
      // The real one reads YAML 1.1.
      for (const document of parseAllDocuments(text, { version: "1.1" }))
        objects.push(labelled(document.toJS() as AppliedObject, resource));
    }
  }
  return objects;
}

function labelled(object: AppliedObject, resource: ManagedResource): AppliedObject {
  const labels = {
    ...object.metadata.labels,
    ...resource.spec.injectLabels,
    "resources.gardener.cloud/managed-by": "gardener",
  };
  return { ...object, metadata: { ...object.metadata, labels } };
}

async function removeAll(target: ResourceTarget, objects: readonly AppliedObject[]): Promise<void> {
  for (const object of objects) await target.remove(object);
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

const idOf = ({ kind, metadata }: AppliedObject): string =>
  `${kind}/${metadata.namespace ?? ""}/${metadata.name}`;

/** The collectable among `secrets` that none of `owners` refers to. */
export function garbageAmong<T extends AppliedObject>(
  secrets: readonly T[],
  owners: readonly AppliedObject[],
): T[] {
  const used = new Set(
    owners.flatMap(({ metadata }) =>
      Object.entries(metadata.annotations ?? {})
        .filter(([key]) => key.startsWith(REFERENCE_PREFIX))
        .map(([, name]) => `${metadata.namespace}/${name}`),
    ),
  );
  return secrets.filter(
    ({ metadata }) =>
      metadata.labels?.[GARBAGE_LABEL] === "true" && !used.has(`${metadata.namespace}/${metadata.name}`),
  );
}
