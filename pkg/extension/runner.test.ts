// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import type { Extension } from "#api/gardener";
import { CodedError } from "#errors";
import { type ApiServer, startApiServer, valueAt } from "#kit/api-server";
import { type ResourceManager, startResourceManager } from "#kit/resource-manager";
import { createKubeClient, type KubeClient, parseKubeConfig } from "#kube";
import { silentLogger } from "#log";
import { type Certificates, DEFAULT_EXTENSION_OPTIONS, type RunnerDeps, runExtension } from "./index.ts";

const NAMESPACE = "shoot--foo--bar";
const KEY = `${NAMESPACE}/registry-spegel`;
const FINALIZER = "extensions.gardener.cloud/registry-spegel";
const signal = new AbortController().signal;

let seed: ApiServer;
let shoot: ApiServer;
let manager: ResourceManager;
let client: KubeClient;
let deps: RunnerDeps;
let nowMs: number;
let unhealthy: string | undefined;
let isAsleep: boolean;
let certificateCalls: string[];

beforeEach(async () => {
  nowMs = Date.UTC(2026, 7, 21, 10, 0, 0, 999);
  unhealthy = undefined;
  isAsleep = false;
  certificateCalls = [];
  [seed, shoot] = await Promise.all([startApiServer({ plain: true }), startApiServer({ plain: true })]);
  manager = await startResourceManager(seed, {
    shoot,
    unhealthyReason: () => unhealthy,
    isAsleep: () => isAsleep,
  });
  const connection = await parseKubeConfig(seed.kubeconfig(), { directory: "/", source: "test" });
  client = createKubeClient(connection, { userAgent: "test", requestsPerSecond: 100_000 });
  deps = {
    client,
    certificates: fakeCertificates(),
    decodeConfig: () => ({ registryPort: 5000, routerPort: 5001, metricsPort: 9090 }),
    logger: silentLogger,
    now: () => nowMs,
    options: {
      ...DEFAULT_EXTENSION_OPTIONS,
      bootstrapperImage: "registry.example.org/bootstrapper@sha256:aa",
      nodeImage: "registry.example.org/spegel@sha256:bb",
      pollIntervalMs: 1,
      healthTimeoutMs: 5000,
      deletionTimeoutMs: 5000,
    },
  };
  seed.seed([
    {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: NAMESPACE, labels: { "gardener.cloud/role": "shoot" } },
    },
  ]);
  seedCluster();
});
afterEach(async () => {
  await client[Symbol.asyncDispose]();
  await manager[Symbol.asyncDispose]();
  await Promise.all([seed, shoot].map((server) => server[Symbol.asyncDispose]()));
});

/** Certificates are another domain's: here only when they are asked for counts. */
function fakeCertificates(): Certificates {
  return {
    async ensure({ serverNames, rotation }) {
      certificateCalls.push(`ensure ${serverNames[0]} ${rotation.phase ?? "-"}`);
      return {
        bundleSecretName: "bundle-1",
        serverSecretName: "server-1",
        clientSecretName: "client-1",
        prune: async () => void certificateCalls.push("prune"),
      };
    },
    remove: async (namespace) => void certificateCalls.push(`remove ${namespace}`),
  };
}

function seedCluster(shootObject: object = {}, spec: object = {}): void {
  seed.seed([
    {
      apiVersion: "extensions.gardener.cloud/v1alpha1",
      kind: "Cluster",
      metadata: { name: NAMESPACE },
      spec: {
        seed: { spec: { ingress: { domain: "ingress.example.org" } } },
        shoot: {
          spec: { provider: { workers: [{ name: "w" }] } },
          status: { technicalID: NAMESPACE },
          ...shootObject,
        },
        ...spec,
      },
    },
  ]);
}

function seedExtension(annotation?: string, more: object = {}): void {
  const present = seed.get("Extension", "registry-spegel", NAMESPACE);
  const annotations = annotation === undefined ? {} : { "gardener.cloud/operation": annotation };
  seed.seed([
    {
      apiVersion: "extensions.gardener.cloud/v1alpha1",
      kind: "Extension",
      spec: { type: "registry-spegel" },
      ...present,
      ...more,
      metadata: { name: "registry-spegel", namespace: NAMESPACE, ...present?.metadata, annotations },
    },
  ]);
}

const extension = (): Extension =>
  seed.get("Extension", "registry-spegel", NAMESPACE) as unknown as Extension;
const run = () => runExtension(deps, KEY, { signal, timeoutMs: 180_000 });
/** What was written since the requests were cleared, in order. */
const writes = (): string[] =>
  seed.requests
    .filter(({ verb }) => !["get", "list", "watch"].includes(verb))
    .map(({ verb, path }) => `${verb} ${path.split("/").slice(-3).join("/")}`);

test("a new Extension is created: objects in the seed and the Shoot, and a status for the webhook", async () => {
  seedExtension();
  await run();
  const { metadata, status } = extension();
  assert.deepEqual(metadata.finalizers, [FINALIZER]);
  assert.deepEqual(status, {
    observedGeneration: 1,
    lastOperation: {
      type: "Create",
      state: "Succeeded",
      progress: 100,
      description: "Successfully created the Extension",
      lastUpdateTime: "2026-08-21T10:00:00Z",
    },
    providerStatus: {
      apiVersion: "spegel.extensions.gardener.cloud/v1alpha1",
      kind: "SpegelStatus",
      bootstrapURL: "https://spegel-foo--bar.ingress.example.org/bootstrap-nodes",
      caBundleSecretName: "bundle-1",
      clientSecretName: "client-1",
      registryPort: 5000,
      routerPort: 5001,
      metricsPort: 9090,
      image: "registry.example.org/spegel@sha256:bb",
    },
  });
  const kinds = (name: string) => manager.applied(NAMESPACE, name).map(({ kind }) => kind);
  assert.deepEqual(kinds("extension-registry-spegel"), [
    "ServiceAccount",
    "Deployment",
    "Service",
    "PodDisruptionBudget",
    "VerticalPodAutoscaler",
    "Gateway",
    "VirtualService",
    "DestinationRule",
    "ScrapeConfig",
    "ServiceMonitor",
    "PrometheusRule",
    "ConfigMap",
  ]);
  assert.deepEqual(kinds("extension-registry-spegel-shoot"), ["ClusterRole", "ClusterRoleBinding"]);
  const role = shoot.get("ClusterRole", "extensions.gardener.cloud:registry-spegel:bootstrapper");
  assert.equal(role?.metadata.labels?.["shoot.gardener.cloud/no-cleanup"], "true");
  assert.deepEqual(certificateCalls, ["ensure spegel-foo--bar.ingress.example.org -", "prune"]);
});

test("what is deployed meets Gardener's checklist for control planes", async () => {
  seedExtension();
  await run();
  const resource = seed.get("ManagedResource", "extension-registry-spegel", NAMESPACE);
  assert.equal(valueAt(resource, "spec.class"), "seed");
  const shootResource = seed.get("ManagedResource", "extension-registry-spegel-shoot", NAMESPACE);
  assert.equal(valueAt<{ class?: string }>(shootResource, "spec").class, undefined);
  assert.equal(shootResource?.metadata.labels?.["origin"], "registry-spegel");
  const deployment = seed.get("Deployment", "registry-spegel-bootstrapper", NAMESPACE);
  const pod = valueAt<object>(deployment, "spec.template.spec");
  const container = valueAt<object>(pod, "containers.0");
  assert.deepEqual(valueAt(container, "args"), [
    "--listen-address=:8443",
    "--health-address=:8081",
    "--metrics-address=:8080",
    "--certificate-directory=/var/run/secrets/registry-spegel/tls",
    "--kubeconfig=/var/run/secrets/gardener.cloud/shoot/generic-kubeconfig/kubeconfig",
    "--ip-families=IPv4",
  ]);
  assert.equal(valueAt(deployment, "spec.replicas"), 1);
  const { labels = {}, annotations = {} } = deployment?.metadata ?? {};
  assert.equal(labels["high-availability-config.resources.gardener.cloud/type"], "controller");
  assert.deepEqual(valueAt(deployment, "spec.template.metadata.annotations"), annotations);
  assert.deepEqual(
    new Set(Object.values(annotations)),
    new Set([
      "bundle-1",
      "generic-token-kubeconfig",
      "server-1",
      "shoot-access-registry-spegel-bootstrapper",
    ]),
  );
  assert.equal(valueAt(pod, "automountServiceAccountToken"), false);
  assert.equal(valueAt(pod, "securityContext.runAsNonRoot"), true);
  assert.deepEqual(valueAt(container, "securityContext.capabilities"), { drop: ["ALL"] });
  assert.deepEqual(Object.keys(valueAt<object>(container, "resources")), ["requests"]);
  const gateway = seed.get("Gateway", "registry-spegel-bootstrapper", NAMESPACE);
  assert.equal(valueAt(gateway, "spec.servers.0.tls.mode"), "PASSTHROUGH");
  assert.equal(valueAt<Record<string, string>>(gateway, "spec.selector")["istio-role"], "seed");
});

test("a Shoot's monitoring gets its scrapes, rules and dashboard, unless the Shoot has none", async () => {
  const found = (): string[] =>
    ["ScrapeConfig", "ServiceMonitor", "PrometheusRule"].flatMap((kind) =>
      seed
        .list(kind, NAMESPACE)
        .map(({ metadata }) => `${kind} ${metadata.name} ${metadata.labels?.["prometheus"]}`),
    );
  seedExtension();
  await run();
  assert.deepEqual(found(), [
    "ScrapeConfig shoot-registry-spegel shoot",
    "ServiceMonitor shoot-registry-spegel shoot",
    "PrometheusRule shoot-registry-spegel shoot",
  ]);
  const [dashboards] = seed.list("ConfigMap", NAMESPACE);
  assert.equal(dashboards?.metadata.labels?.["dashboard.monitoring.gardener.cloud/shoot"], "true");
  seedCluster({ spec: { purpose: "testing", provider: { workers: [{ name: "w" }] } } });
  await run();
  assert.deepEqual(found(), []);
  assert.deepEqual(seed.list("ConfigMap", NAMESPACE), []);
});

test("a second run changes nothing but the times of the status", async () => {
  seedExtension();
  await run();
  const before = structuredClone({ ...extension(), metadata: undefined });
  const objects = ["Secret", "ManagedResource", "Deployment", "Service"].map((kind) =>
    JSON.stringify(seed.list(kind)),
  );
  seedExtension("reconcile");
  seed.clearRequests();
  nowMs += 60_000;
  await run();
  assert.deepEqual(writes(), [
    `patch ${NAMESPACE}/extensions/registry-spegel`, // takes the annotation away
    "patch extensions/registry-spegel/status", // Processing
    "patch extensions/registry-spegel/status", // Succeeded
  ]);
  assert.deepEqual(
    ["Secret", "ManagedResource", "Deployment", "Service"].map((kind) => JSON.stringify(seed.list(kind))),
    objects,
  );
  assert.equal(extension().metadata.annotations?.["gardener.cloud/operation"], undefined);
  assert.equal(extension().status?.lastOperation?.type, "Reconcile");
  assert.equal(extension().status?.lastOperation?.lastUpdateTime, "2026-08-21T10:01:00Z");
  assert.deepEqual(extension().status?.providerStatus, before.status?.providerStatus);
});

test("a report is never older than the request, also where gardenlet's clock is ahead", async () => {
  const table = [
    ["2026-08-21T09:59:00.000000001Z", "2026-08-21T10:00:00Z"],
    ["2026-08-21T10:01:00.123456789Z", "2026-08-21T10:01:00Z"],
    ["2126-01-01T00:00:00Z", "2026-08-21T10:00:00Z"], // no clock is that far ahead
    ["yesterday", "2026-08-21T10:00:00Z"],
  ] as const;
  for (const [timestamp, reported] of table) {
    seedExtension("reconcile");
    const metadata = {
      ...extension().metadata,
      annotations: { "gardener.cloud/operation": "reconcile", "gardener.cloud/timestamp": timestamp },
    };
    seed.seed([{ ...extension(), metadata } as unknown as Parameters<typeof seed.seed>[0][number]]);
    await run();
    assert.equal(extension().status?.lastOperation?.lastUpdateTime, reported, timestamp);
  }
});

test("garbage collection takes nothing that is in use, and the former payload after a change", async () => {
  seedExtension();
  await run();
  assert.deepEqual(manager.collectGarbage(), []);
  deps = {
    ...deps,
    options: { ...deps.options, bootstrapperImage: "registry.example.org/bootstrapper@sha256:cc" },
  };
  await run();
  const garbage = manager.collectGarbage();
  assert.equal(garbage.length, 1);
  assert.match(garbage[0] ?? "", /^managedresource-extension-registry-spegel-[0-9a-f]{8}$/);
  const annotations =
    seed.get("ManagedResource", "extension-registry-spegel", NAMESPACE)?.metadata.annotations ?? {};
  assert.equal(Object.keys(annotations).length, 1);
  await run();
  assert.equal(extension().status?.lastOperation?.state, "Succeeded");
});

test("a payload that vanished is made again", async () => {
  seedExtension();
  await run();
  const [payload] = seed
    .list("Secret", NAMESPACE)
    .filter(({ metadata }) => metadata.name.startsWith("managedresource-"));
  seed.remove("Secret", payload?.metadata.name ?? "", NAMESPACE);
  await run();
  assert.ok(seed.get("Secret", payload?.metadata.name ?? "", NAMESPACE));
});

test("an invalid providerConfig is the user's to mend: reported with its code and not retried", async () => {
  seedExtension();
  deps = {
    ...deps,
    decodeConfig: () => {
      throw new CodedError({
        code: "CONFIG_INVALID",
        message: "providerConfig.registryPort must be <= 65535",
      });
    },
  };
  assert.equal(await run(), undefined);
  const { lastError, lastOperation, observedGeneration, providerStatus } = extension().status ?? {};
  assert.equal(observedGeneration, 1);
  assert.equal(lastOperation?.state, "Error");
  assert.deepEqual(lastError?.codes, ["ERR_CONFIGURATION_PROBLEM"]);
  assert.match(lastError?.description ?? "", /providerConfig\.registryPort must be <= 65535/);
  assert.equal(providerStatus, undefined);
  assert.equal(seed.list("ManagedResource").length, 0);
});

test("nodes keep what they have while a changed providerConfig is not valid", async () => {
  seedExtension();
  await run();
  const { providerStatus } = extension().status ?? {};
  const { decodeConfig } = deps;
  deps = {
    ...deps,
    decodeConfig: () => {
      throw new CodedError({ code: "CONFIG_INVALID", message: "providerConfig.registryPort is reserved" });
    },
  };
  seedExtension("reconcile");
  assert.equal(await run(), undefined);
  assert.deepEqual(extension().status?.lastError?.codes, ["ERR_CONFIGURATION_PROBLEM"]);
  assert.deepEqual(extension().status?.providerStatus, providerStatus);
  deps = { ...deps, decodeConfig: () => ({ ...decodeConfig(undefined), registryPort: 15500 }) };
  seedExtension("reconcile");
  await run();
  assert.deepEqual(extension().status?.providerStatus, {
    ...(providerStatus as object),
    registryPort: 15500,
  });
  assert.equal(extension().status?.lastError, undefined);
});

test("fields that another version has left in the status go", async () => {
  seedExtension();
  await run();
  const wanted = extension().status?.providerStatus as object;
  for (const left of [{ ...wanted, later: { a: 1 } }, { later: "x" }, "text", ["list"]]) {
    seedExtension("reconcile", { status: { ...extension().status, providerStatus: left } });
    await run();
    assert.deepEqual(extension().status?.providerStatus, wanted, JSON.stringify(left));
  }
});

test("a bug in a step is reported without a code and retried", async () => {
  seedExtension();
  deps = {
    ...deps,
    decodeConfig: () => {
      throw new TypeError("cannot read properties of undefined");
    },
  };
  await assert.rejects(run(), TypeError);
  assert.deepEqual(extension().status?.lastError?.codes, []);
});

test("success clears the error, and an unfinished creation stays one", async () => {
  seedExtension();
  unhealthy = "pod does not start";
  deps = { ...deps, options: { ...deps.options, healthTimeoutMs: 20 } };
  const reason = /ResourcesHealthy is False: pod does not start/;
  do await assert.rejects(run(), { code: "EXTENSION_NOT_HEALTHY" });
  while (!reason.test(extension().status?.lastError?.description ?? "")); // until the manager has looked
  assert.equal(extension().status?.providerStatus, undefined);
  assert.ok(!certificateCalls.includes("prune"), "nothing is pruned before everything runs");
  unhealthy = undefined;
  manager.resync();
  deps = { ...deps, options: { ...deps.options, healthTimeoutMs: 5000 } };
  await run();
  assert.equal(extension().status?.lastError, undefined);
  assert.equal(extension().status?.lastOperation?.type, "Create");
});

test("a hibernated Shoot has everything but replicas, and nothing of it is waited for", async () => {
  seedExtension();
  seedCluster({ spec: { provider: { workers: [{ name: "w" }] }, hibernation: { enabled: true } } });
  unhealthy = "its API server is gone";
  await run();
  assert.equal(extension().status?.lastOperation?.state, "Succeeded");
  assert.ok(extension().status?.providerStatus);
  while (seed.list("Deployment").length === 0) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(valueAt(seed.list("Deployment")[0], "spec.replicas"), 0);
  unhealthy = undefined;
  seedCluster();
  await run();
  assert.equal(
    valueAt(seed.get("Deployment", "registry-spegel-bootstrapper", NAMESPACE), "spec.replicas"),
    1,
  );
});

for (const [reason, cluster] of [
  ["workerless", () => seedCluster({ spec: { provider: {} } })],
  ["self-hosted", () => seedCluster({}, { seed: null })],
] as const) {
  test(`a ${reason} Shoot succeeds without anything, and what was there is removed`, async () => {
    seedExtension();
    await run();
    cluster();
    certificateCalls = [];
    await run();
    assert.equal(extension().status?.lastOperation?.state, "Succeeded");
    assert.match(extension().status?.lastOperation?.description ?? "", new RegExp(`the Shoot is ${reason}`));
    assert.equal(extension().status?.providerStatus, undefined);
    assert.deepEqual(certificateCalls, [`remove ${NAMESPACE}`]);
    assert.equal(seed.get("Secret", "shoot-access-registry-spegel-bootstrapper", NAMESPACE), undefined);
  });
}

test("deletion removes all and lets the Extension go", async () => {
  seedExtension();
  await run();
  await client.delete(
    {
      group: "extensions.gardener.cloud",
      version: "v1alpha1",
      plural: "extensions",
      kind: "Extension",
      namespaced: true,
    },
    { namespace: NAMESPACE, name: "registry-spegel" },
    { signal },
  );
  assert.ok(extension().metadata.deletionTimestamp);
  certificateCalls = [];
  await run();
  assert.equal(extension(), undefined);
  for (const kind of ["ManagedResource", "Deployment", "Service", "Gateway"])
    assert.deepEqual(seed.list(kind), [], kind);
  assert.deepEqual(shoot.list("ClusterRole"), []);
  assert.deepEqual(certificateCalls, [`remove ${NAMESPACE}`]);
  manager.collectGarbage();
  assert.deepEqual(seed.list("Secret", NAMESPACE), []);
});

async function markDeleted(): Promise<void> {
  seed.seed([
    {
      ...(extension() as object),
      metadata: { ...extension().metadata, deletionTimestamp: "2026-08-21T10:00:00Z" },
    } as never,
  ]);
}

test("a deletion that hangs is reported as such and tried again", async () => {
  seedExtension();
  await run();
  await manager[Symbol.asyncDispose]();
  await markDeleted();
  deps = { ...deps, options: { ...deps.options, deletionTimeoutMs: 10 } };
  await assert.rejects(run(), { code: "EXTENSION_NOT_DELETED" });
  assert.match(
    extension().status?.lastError?.description ?? "",
    /extension-registry-spegel-shoot still exists/,
  );
  assert.deepEqual(extension().metadata.finalizers, [FINALIZER]);
  assert.ok(!certificateCalls.some((call) => call.startsWith("remove")));
});

test("a sleeping Shoot lets the Extension go; what is in it goes when it wakes up", async () => {
  const hibernation = { enabled: true };
  const spec = { provider: { workers: [{ name: "w" }] }, hibernation };
  const role = () => shoot.get("ClusterRole", "extensions.gardener.cloud:registry-spegel:bootstrapper");
  const resources = (): string[] => seed.list("ManagedResource").map(({ metadata }) => metadata.name);
  seedExtension();
  await run();
  isAsleep = true;
  seedCluster({ spec });
  await markDeleted();
  certificateCalls = [];
  await run();
  assert.equal(extension(), undefined);
  assert.deepEqual(certificateCalls, [`remove ${NAMESPACE}`]);
  assert.deepEqual(
    resources(),
    ["extension-registry-spegel-shoot"],
    "waits for the Shoot's resource manager",
  );
  manager.collectGarbage();
  assert.equal(seed.list("Secret", NAMESPACE).length, 1, "which needs its payload");

  seedExtension();
  await run();
  assert.equal(extension().status?.lastOperation?.state, "Succeeded", "wanted again before it wakes up");
  seedCluster();
  await assert.rejects(run(), { code: "EXTENSION_NOT_DELETED" });
  assert.match(
    extension().status?.lastError?.description ?? "",
    /ManagedResource extension-registry-spegel-shoot is still being deleted; it is made again/,
  );
  isAsleep = false;
  manager.resync();
  while (role() !== undefined) await new Promise((resolve) => setImmediate(resolve));
  while (resources().length > 1) await new Promise((resolve) => setImmediate(resolve));
  await run();
  assert.ok(role());
  assert.equal(extension().status?.lastError, undefined);
});

test("a Shoot that was woken up to be deleted is waited for", async () => {
  seedExtension();
  await run();
  isAsleep = true;
  const metadata = { deletionTimestamp: "2026-08-21T10:00:00Z" };
  seedCluster({ spec: { provider: { workers: [{ name: "w" }] }, hibernation: { enabled: true } }, metadata });
  await markDeleted();
  deps = { ...deps, options: { ...deps.options, deletionTimeoutMs: 10 } };
  await assert.rejects(run(), { code: "EXTENSION_NOT_DELETED" });
  assert.ok(extension());
});

test("a forced deletion waits for nobody", async () => {
  seedExtension();
  await run();
  await manager[Symbol.asyncDispose]();
  await markDeleted();
  seedCluster({ metadata: { annotations: { "confirmation.gardener.cloud/force-deletion": "true" } } });
  await run();
  assert.equal(seed.get("Extension", "registry-spegel", NAMESPACE), undefined);
});

test("an Extension without our finalizer is not deleted twice", async () => {
  seedExtension();
  seed.seed([
    {
      ...(extension() as object),
      metadata: { ...extension().metadata, finalizers: ["other"], deletionTimestamp: "2026-08-21T10:00:00Z" },
    } as never,
  ]);
  seed.clearRequests();
  await run();
  assert.deepEqual(writes(), []);
});

test("foreign finalizers survive ours, and a conflict about them is overcome", async () => {
  seedExtension();
  await run();
  seed.seed([
    {
      ...(extension() as object),
      metadata: {
        ...extension().metadata,
        finalizers: ["other", FINALIZER],
        deletionTimestamp: "2026-08-21T10:00:00Z",
      },
    } as never,
  ]);
  seed.faults.inject({ method: "PATCH", path: /extensions\/registry-spegel$/, times: 1 }, { status: 409 });
  await run();
  assert.deepEqual(extension().metadata.finalizers, ["other"]);
});

test("migration keeps the Shoot's objects and all certificates, and lets the Extension go", async () => {
  seedExtension();
  await run();
  seedExtension("migrate");
  certificateCalls = [];
  await run();
  assert.ok(
    shoot.get("ClusterRole", "extensions.gardener.cloud:registry-spegel:bootstrapper"),
    "kept for the next seed",
  );
  assert.equal(seed.get("Deployment", "registry-spegel-bootstrapper", NAMESPACE), undefined);
  assert.deepEqual(seed.list("ManagedResource"), []);
  assert.deepEqual(certificateCalls, []);
  const { metadata, status } = extension();
  assert.equal(status?.lastOperation?.type, "Migrate");
  assert.equal(status?.lastOperation?.state, "Succeeded");
  assert.deepEqual(metadata.finalizers, []);
  assert.equal(metadata.annotations?.["gardener.cloud/operation"], undefined);
  seed.clearRequests();
  await run();
  assert.deepEqual(writes(), [], "handed over: nothing is written any more");
});

test("a restored Extension is reconciled and its annotation goes last", async () => {
  seedExtension("restore");
  unhealthy = "not yet";
  deps = { ...deps, options: { ...deps.options, healthTimeoutMs: 10 } };
  await assert.rejects(run());
  assert.equal(extension().metadata.annotations?.["gardener.cloud/operation"], "restore");
  unhealthy = undefined;
  manager.resync();
  deps = { ...deps, options: { ...deps.options, healthTimeoutMs: 5000 } };
  await run();
  assert.equal(extension().status?.lastOperation?.type, "Restore");
  assert.equal(extension().metadata.annotations?.["gardener.cloud/operation"], undefined);
});

for (const outcome of ["succeeds", "fails"] as const) {
  test(`what was made for an Extension that vanished in spite of its finalizer is deleted when its run ${outcome}`, async () => {
    seedExtension();
    const { certificates } = deps;
    const prune = async (): Promise<void> => {
      throw new Error("no status, no pruning");
    };
    const ensure: Certificates["ensure"] = async (...request) => {
      const ensured = await certificates.ensure(...request);
      seed.remove("Extension", "registry-spegel", NAMESPACE);
      if (outcome === "fails") unhealthy = "no node left";
      return { ...ensured, prune };
    };
    const options = { ...deps.options, healthTimeoutMs: outcome === "fails" ? 10 : 5000 };
    deps = { ...deps, options, certificates: { ...certificates, ensure } };
    seed.faults.inject({ method: "DELETE", times: 3 }, "reset");
    await run();
    assert.ok(writes().includes("create namespaces/shoot--foo--bar/managedresources"), "something was made");
    for (const kind of ["Extension", "ManagedResource", "Deployment"])
      assert.deepEqual(seed.list(kind), [], kind);
    assert.equal(
      shoot.get("ClusterRole", "extensions.gardener.cloud:registry-spegel:bootstrapper"),
      undefined,
    );
    assert.equal(certificateCalls.at(-1), `remove ${NAMESPACE}`);
  });
}

test("nothing is deleted because an API server does not serve Extensions for a moment", async () => {
  seedExtension();
  await run();
  certificateCalls = [];
  const status = { method: "PATCH", path: /registry-spegel\/status$/ };
  for (const served of [0, 1]) {
    seedExtension();
    using faults = new DisposableStack();
    for (let count = 0; count < served; count++)
      faults.use(seed.faults.inject({ ...status, times: 1 }, { after: Promise.resolve() }));
    faults.use(seed.faults.inject(status, { status: 404 }));
    await assert.rejects(run(), { code: "KUBE_UNAVAILABLE" });
  }
  assert.ok(!certificateCalls.some((call) => call.startsWith("remove")), certificateCalls.join());
  assert.ok(seed.get("Deployment", "registry-spegel-bootstrapper", NAMESPACE));
});

test("an Extension that vanishes while it migrates keeps what goes along with the Shoot", async () => {
  seedExtension();
  await run();
  seedExtension("migrate");
  certificateCalls = [];
  const client: KubeClient = {
    ...deps.client,
    mergePatchStatus(...request) {
      seed.remove("Extension", "registry-spegel", NAMESPACE);
      return deps.client.mergePatchStatus(...request);
    },
  };
  await runExtension({ ...deps, client }, KEY, { signal, timeoutMs: 180_000 });
  assert.deepEqual(certificateCalls, []);
  assert.ok(shoot.get("ClusterRole", "extensions.gardener.cloud:registry-spegel:bootstrapper"));
});

test("wait-for-state, a failed Shoot and an Extension that is gone are left alone", async () => {
  await run();
  seedExtension("wait-for-state");
  await run();
  seedExtension();
  seedCluster({ status: { lastOperation: { state: "Failed" } } });
  await run();
  assert.equal(extension().status, undefined);
  assert.equal(extension().metadata.finalizers, undefined);
});

test("a missing Cluster and a seed without ingress are errors that say so", async () => {
  seedExtension();
  seedCluster({}, { seed: { spec: {} } });
  await assert.rejects(run(), { code: "EXTENSION_HOST_INVALID" });
  assert.match(extension().status?.lastError?.description ?? "", /no spec\.ingress\.domain/);
  seed.remove("Cluster", NAMESPACE);
  await assert.rejects(run(), { code: "EXTENSION_CLUSTER_INVALID" });
});

test("an API server that fails now and then only delays", async () => {
  seedExtension();
  let attempts = 0;
  let failures = 0;
  for (let skip = 0; skip < 40; skip += 3) {
    const faults = new DisposableStack();
    // The n-th request fails, whichever it is.
    const gate = Promise.resolve();
    for (let index = 0; index < skip; index++)
      faults.use(seed.faults.inject({ path: /registry-spegel|secrets/, times: 1 }, { after: gate }));
    faults.use(seed.faults.inject({ path: /registry-spegel|secrets/, times: 1 }, "reset"));
    attempts++;
    await run().catch(() => failures++);
    faults.dispose();
  }
  await run();
  assert.ok(failures > 0 && failures <= attempts);
  assert.equal(extension().status?.lastOperation?.state, "Succeeded");
  assert.equal(extension().status?.lastError, undefined);
});

test("a run that is aborted from outside leaves its state for the next leader", async () => {
  seedExtension();
  unhealthy = "forever";
  const stop = new AbortController();
  const running = runExtension(deps, KEY, { signal: stop.signal, timeoutMs: 180_000 });
  while (seed.list("ManagedResource").length < 2) await new Promise((resolve) => setImmediate(resolve));
  stop.abort(new Error("leadership lost"));
  await assert.rejects(running, /leadership lost/);
  assert.equal(extension().status?.lastOperation?.state, "Processing");
  assert.equal(extension().status?.lastError, undefined);
});
