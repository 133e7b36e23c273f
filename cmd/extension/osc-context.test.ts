// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import { type ApiObjectInit, type ApiServer, readManifests, startApiServer } from "#kit/api-server";
import { createKubeClient, parseKubeConfig } from "#kube";
import { silentLogger } from "#log";
import { createOSCContextReader, type OSCContextReader } from "./osc-context.ts";

const NAMESPACE = "shoot--foo--bar";
const OPERATION = "gardener.cloud/operation";
const TIMESTAMP = "gardener.cloud/timestamp";
const REQUESTED = "2026-08-21T10:00:00.123456789Z";
const WRITTEN = "2026-08-21T10:01:00.123456789Z";

const [clusterExample] = await readManifests(new URL("../../example/cluster.yaml", import.meta.url));

const oscOf = (timestamp: string | undefined) => ({
  metadata: { name: "pool", ...(timestamp && { annotations: { [TIMESTAMP]: timestamp } }) },
});

/** An Extension that has succeeded; `change` replaces fields of its metadata and its status. */
function extension(change: { readonly metadata?: object; readonly status?: object } = {}): ApiObjectInit {
  return {
    apiVersion: "extensions.gardener.cloud/v1alpha1",
    kind: "Extension",
    metadata: {
      name: "registry-spegel",
      namespace: NAMESPACE,
      generation: 2,
      annotations: { [TIMESTAMP]: REQUESTED },
      ...change.metadata,
    },
    spec: { type: "registry-spegel" },
    status: {
      observedGeneration: 2,
      providerStatus: { registryPort: 5000 },
      lastOperation: {
        type: "Reconcile",
        state: "Succeeded",
        progress: 100,
        description: "done",
        lastUpdateTime: "2026-08-21T10:00:00Z",
      },
      ...change.status,
    },
  } as unknown as ApiObjectInit;
}

/** A reader whose caches are filled, with what the API server has been asked since. */
async function openReader(
  objects: readonly ApiObjectInit[],
  now?: () => number,
): Promise<{ seed: ApiServer; reader: OSCContextReader } & AsyncDisposable> {
  await using parts = new AsyncDisposableStack();
  const seed = parts.use(await startApiServer());
  const connection = await parseKubeConfig(seed.kubeconfig(), { directory: "/", source: "test" });
  const client = parts.use(createKubeClient(connection, { userAgent: "test" }));
  seed.seed([...objects]);
  const reader = parts.use(createOSCContextReader({ client, logger: silentLogger, ...(now && { now }) }));
  while (!reader.clusters.hasSynced || !reader.extensions.hasSynced)
    await new Promise((resolve) => setTimeout(resolve, 2));
  const running = parts.move();
  return { seed, reader, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

const readsOf = (seed: ApiServer): string[] =>
  seed.requests.filter(({ verb }) => verb === "get").map(({ path }) => path.split("/").slice(-2).join("/"));

const cluster = (change: object = {}): ApiObjectInit =>
  ({ ...structuredClone(clusterExample), ...change }) as ApiObjectInit;

test("the webhook sees a worker pool with a control plane, from the cache as well as live", async (t) => {
  const own = cluster() as ApiObjectInit & {
    spec: { shoot: { spec: { provider: { workers: object[] } } } };
  };
  own.spec.shoot.spec.provider.workers.push({ name: "control-plane", controlPlane: {} });
  await using seed = await startApiServer();
  const connection = await parseKubeConfig(seed.kubeconfig(), { directory: "/", source: "test" });
  await using client = createKubeClient(connection, { userAgent: "test" });
  seed.seed([own, cluster({ metadata: { name: "plain" } })]);
  await using reader = createOSCContextReader({ client, logger: silentLogger });
  for (const from of ["live", "cache"]) {
    const selfHosted = await reader.load(own.metadata.name, oscOf(WRITTEN), { signal: t.signal });
    assert.ok(
      selfHosted?.cluster.spec?.shoot?.spec?.provider?.workers?.some((worker) => worker.controlPlane),
      from,
    );
    const plain = await reader.load("plain", oscOf(WRITTEN), { signal: t.signal });
    assert.equal(plain?.cluster.spec?.shoot?.spec?.provider?.workers?.length ?? 0, 0, from);
    while (!reader.clusters.hasSynced) await new Promise((resolve) => setTimeout(resolve, 2));
  }
});

test("a Shoot whose Extension has succeeded is read without a request to the API server", async (t) => {
  await using open = await openReader([cluster({ metadata: { name: NAMESPACE } }), extension()]);
  const { seed, reader } = open;
  for (let count = 0; count < 50; count++) {
    const context = await reader.load(NAMESPACE, oscOf(WRITTEN), { signal: t.signal });
    assert.deepEqual(context?.extension?.status?.providerStatus, { registryPort: 5000 });
  }
  assert.deepEqual(readsOf(seed), []);
});

const unsure: Readonly<Record<string, readonly [extension: ApiObjectInit, written: string | undefined]>> = {
  "is asked to reconcile": [
    extension({ metadata: { annotations: { [OPERATION]: "reconcile", [TIMESTAMP]: REQUESTED } } }),
    WRITTEN,
  ],
  "has not seen its last change": [extension({ metadata: { generation: 3 } }), WRITTEN],
  "is being reconciled": [
    extension({ status: { lastOperation: { state: "Processing", lastUpdateTime: REQUESTED } } }),
    WRITTEN,
  ],
  "has failed": [extension({ status: { lastError: { description: "no" } } }), WRITTEN],
  "reports of an older request": [
    extension({ metadata: { annotations: { [TIMESTAMP]: "2026-08-21T10:00:01Z" } } }),
    WRITTEN,
  ],
  "is of a reconciliation of the Shoot long before": [extension(), "2026-08-21T10:15:01Z"],
  "has no timestamp": [extension({ metadata: { annotations: {} } }), WRITTEN],
  "is asked for by an object without a timestamp": [extension(), undefined],
};
for (const [what, [object, written]] of Object.entries(unsure)) {
  test(`an Extension that ${what} is read live`, async (t) => {
    await using open = await openReader([cluster({ metadata: { name: NAMESPACE } }), object]);
    const { seed, reader } = open;
    const context = await reader.load(NAMESPACE, oscOf(written), { signal: t.signal });
    assert.deepEqual(context?.extension?.status?.providerStatus, { registryPort: 5000 });
    assert.deepEqual(readsOf(seed), ["extensions/registry-spegel"]);
  });
}

test("an Extension is read live while nothing is heard of the API server", async (t) => {
  let silenceMs = 0;
  const objects = [cluster({ metadata: { name: NAMESPACE } }), extension()];
  await using open = await openReader(objects, () => Date.now() + silenceMs);
  const { seed, reader } = open;
  silenceMs = 90_001;
  assert.ok((await reader.load(NAMESPACE, oscOf(WRITTEN), { signal: t.signal }))?.extension);
  assert.deepEqual(readsOf(seed), ["extensions/registry-spegel"]);
});

test("an Extension that does not exist, and one that is gone, are none", async (t) => {
  await using open = await openReader([cluster({ metadata: { name: NAMESPACE } })]);
  const { seed, reader } = open;
  const load = () => reader.load(NAMESPACE, oscOf(WRITTEN), { signal: t.signal });
  assert.equal((await load())?.extension, undefined);
  seed.seed([extension()]);
  assert.ok((await load())?.extension);
  seed.remove("Extension", "registry-spegel", NAMESPACE);
  while (reader.extensions.size > 0) await new Promise((resolve) => setTimeout(resolve, 2));
  assert.equal((await load())?.extension, undefined);
});
