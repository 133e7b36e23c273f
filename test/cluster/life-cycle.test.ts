// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Extension, OperatingSystemConfig } from "#api/gardener";
import {
  BOOTSTRAPPER_NAME,
  CLUSTERS,
  EXTENSION_NAME,
  EXTENSION_TYPE,
  EXTENSIONS,
  FINALIZER,
  SEED_RESOURCE_NAME,
  SHOOT_ACCESS_SECRET_NAME,
  SHOOT_RESOURCE_NAME,
} from "#extension";
import { valueAt } from "#kit/api-server";
import { validateOSC } from "#kit/node-agent";
import { isIssuedBy, parseCertificate, parseCertificates } from "#pki";
import type { AnyObject } from "../kit/kube-parts/index.ts";
import { CUSTOM_RESOURCES, type CustomResources, type Landscape, startLandscape } from "./landscape.ts";
import { type Installation, installExtension, NODE_IMAGE } from "./run-extension.ts";

const CONFIG = { apiVersion: "spegel.extensions.gardener.cloud/v1alpha1", kind: "SpegelConfig" };
/** Everything the extension brings into a Shoot's namespace. */
const KINDS: readonly (readonly [apiVersion: string, kind: string])[] = [
  ["v1", "Secret"],
  ["resources.gardener.cloud/v1alpha1", "ManagedResource"],
  ["apps/v1", "Deployment"],
  ["v1", "Service"],
  ["policy/v1", "PodDisruptionBudget"],
  ["autoscaling.k8s.io/v1", "VerticalPodAutoscaler"],
  ["networking.istio.io/v1beta1", "Gateway"],
  ["networking.istio.io/v1beta1", "VirtualService"],
  ["networking.istio.io/v1beta1", "DestinationRule"],
];

for (const customResources of CUSTOM_RESOURCES) {
  describe(`with ${customResources} custom resources, the extension`, { timeout: 300_000 }, () => {
    scenarios(customResources);
  });
}

function scenarios(customResources: CustomResources): void {
  let landscape: Landscape;
  let installation: Installation;
  const parts = new AsyncDisposableStack();

  before(async () => {
    landscape = parts.use(await startLandscape({ customResources }));
    installation = parts.use(await installExtension(landscape));
    parts.use(await installation.open());
    await installation.service.ready(1, landscape);
    await webhookRegistered();
  });
  after(() => parts.disposeAsync());

  async function webhookRegistered(): Promise<AnyObject> {
    for (;;) {
      const found = await landscape.seed.admin.find(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        EXTENSION_NAME,
      );
      if (found !== undefined) return found;
      landscape.signal.throwIfAborted();
    }
  }

  const statusOf = (extension: Extension): Record<string, string> =>
    extension.status?.providerStatus as Record<string, string>;
  const unitNames = (osc: OperatingSystemConfig): string[] => (osc.spec.units ?? []).map(({ name }) => name);
  const snapshot = async (namespace: string): Promise<Record<string, AnyObject[]>> => {
    const lists = KINDS.map(
      async ([apiVersion, kind]) =>
        [kind, await landscape.seed.admin.list(apiVersion, kind, namespace)] as const,
    );
    return Object.fromEntries(await Promise.all(lists));
  };
  const namesOf = (objects: Record<string, AnyObject[]>): string[] =>
    Object.values(objects)
      .flat()
      .map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  const roleInShoot = (): Promise<AnyObject | undefined> =>
    landscape.shoot.admin.find(
      "rbac.authorization.k8s.io/v1",
      "ClusterRole",
      "extensions.gardener.cloud:registry-spegel:bootstrapper",
    );
  /** Requests of the extension since the records were cleared; probes of the leases of other replicas aside. */
  const writes = (namespace: string): string[] =>
    landscape.seed.front.requests
      .filter(({ method, path, userAgent }) => {
        return method !== "GET" && userAgent.startsWith(EXTENSION_NAME) && path.includes(`/${namespace}/`);
      })
      .map(({ method, path }) => `${method} ${path.split(`/${namespace}/`)[1]}`);

  it("gives a Shoot without a providerConfig a bootstrapper, and its nodes the mirror", async () => {
    const { gardenlet, seed } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    const extension = await gardenlet.awaitReady(namespace);
    const { caBundleSecretName = "", clientSecretName = "", ...status } = statusOf(extension);
    assert.deepEqual(status, {
      apiVersion: CONFIG.apiVersion,
      kind: "SpegelStatus",
      bootstrapURL: `https://spegel-${namespace.replace("shoot--", "")}.ingress.local.seed.example.org/bootstrap-nodes`,
      registryPort: 5000,
      routerPort: 5001,
      metricsPort: 9090,
      image: NODE_IMAGE,
    });
    const bundle = await gardenlet.secretData(namespace, caBundleSecretName);
    const authorities = parseCertificates(String(bundle?.["bundle.crt"]));
    const client = parseCertificate(
      String((await gardenlet.secretData(namespace, clientSecretName))?.["tls.crt"]),
    );
    assert.ok(isIssuedBy(client, authorities, Date.now()));
    const deployment = await seed.admin.find("apps/v1", "Deployment", BOOTSTRAPPER_NAME, namespace);
    assert.equal(valueAt(deployment, "spec.replicas"), 1);
    assert.ok(await roleInShoot());
    const access = await gardenlet.secretData(namespace, SHOOT_ACCESS_SECRET_NAME);
    assert.match(String(access?.["token"]), /^ey/, "the token requestor has filled it");

    const osc = await gardenlet.writeOSC(namespace);
    assert.deepEqual(validateOSC(osc), []);
    assert.deepEqual(unitNames(osc).slice(-2), ["spegel.service", "spegel-metrics.service"]);
    const references = (osc.spec.files ?? []).flatMap(({ content }) => content.secretRef?.name ?? []);
    assert.ok(references.includes(clientSecretName) && references.includes(caBundleSecretName));
    assert.deepEqual(
      osc.spec.criConfig?.containerd?.registries?.map(({ upstream }) => upstream),
      ["_default"],
    );
    const again = await gardenlet.writeOSC(namespace);
    assert.deepEqual(again.spec, osc.spec, "written from scratch, the same comes out");
    const provision = await gardenlet.writeOSC(namespace, { purpose: "provision" });
    assert.ok(!unitNames(provision).includes("spegel.service"), "user data stays as it is");
    assert.deepEqual(landscape.seed.front.warnings, []);
    assert.deepEqual(
      await landscape.resourceManager.collectGarbage(namespace),
      [],
      "all secrets are referred to",
    );
  });

  it("writes nothing but status when nothing has changed", async () => {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    const before = await snapshot(namespace);
    landscape.seed.front.clearRequests();
    await gardenlet.deploy(namespace);
    await gardenlet.awaitReady(namespace);
    assert.deepEqual(await snapshot(namespace), before);
    assert.deepEqual(writes(namespace), [
      "PATCH extensions/registry-spegel",
      "PATCH extensions/registry-spegel/status",
      "PATCH extensions/registry-spegel/status",
    ]);
  });

  it("reports a providerConfig that is not valid, and recovers when it is mended", async () => {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace, { ...CONFIG, registryPort: 10250 });
    const failed = await gardenlet.awaitExtension(namespace, ({ status }) => status?.lastError !== undefined);
    assert.deepEqual(failed.status?.lastError?.codes, ["ERR_CONFIGURATION_PROBLEM"]);
    assert.match(failed.status?.lastError?.description ?? "", /registryPort/);
    await assert.rejects(gardenlet.writeOSC(namespace), /no providerStatus yet/, "nodes wait for it");
    await gardenlet.deploy(namespace, "reconcile", { ...CONFIG, unknown: 1 });
    await gardenlet.awaitExtension(namespace, ({ status }) =>
      /unknown/.test(status?.lastError?.description ?? ""),
    );
    await gardenlet.deploy(namespace, "reconcile", { ...CONFIG, registryPort: 15500 });
    assert.equal(statusOf(await gardenlet.awaitReady(namespace))["registryPort"] as unknown, 15500);
    await gardenlet.writeOSC(namespace);
  });

  it("changes a port in place: no certificate, no other object, nothing of the old port", async () => {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    const first = await gardenlet.writeOSC(namespace);
    const before = await snapshot(namespace);
    await gardenlet.deploy(namespace, "reconcile", { ...CONFIG, registryPort: 15500 });
    await gardenlet.awaitReady(namespace);
    assert.deepEqual(await snapshot(namespace), before);
    // A foreign writer sends the mutated object back before gardenlet writes it anew.
    const labelled = await gardenlet.client.mergePatch(
      {
        group: "extensions.gardener.cloud",
        version: "v1alpha1",
        plural: "operatingsystemconfigs",
        kind: "OperatingSystemConfig",
        namespaced: true,
      },
      first.metadata,
      { metadata: { labels: { touched: "yes" } } },
      landscape,
    );
    assert.doesNotMatch(JSON.stringify(labelled), /localhost:5000|registry-addr=:5000/);
    const second = await gardenlet.writeOSC(namespace);
    assert.deepEqual(validateOSC(second), []);
    assert.doesNotMatch(JSON.stringify(second), /localhost:5000|registry-addr=:5000/);
    assert.match(JSON.stringify(second), /localhost:15500/);
  });

  it("leaves nothing behind when it is disabled for a living Shoot", async () => {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot();
    const untouched = namesOf(await snapshot(namespace));
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    assert.ok(unitNames(await gardenlet.writeOSC(namespace)).includes("spegel.service"));
    await gardenlet.disable(namespace);
    const osc = await gardenlet.writeOSC(namespace);
    assert.doesNotMatch(JSON.stringify(osc), /spegel/);
    await landscape.resourceManager.collectGarbage(namespace);
    assert.deepEqual(namesOf(await snapshot(namespace)), untouched);
  });

  it("answers for nodes without a request to the API server", async () => {
    const { gardenlet, seed } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    const asked = (): string[] =>
      seed.front.requests
        .filter(
          ({ userAgent, path, isWatch }) =>
            userAgent.startsWith(EXTENSION_NAME) && path.includes(namespace) && !isWatch,
        )
        .map(({ method, path }) => `${method} ${path}`);
    // Until the caches of the webhook hold what was just made.
    do {
      seed.front.clearRequests();
      await gardenlet.writeOSC(namespace);
    } while (asked().length > 0);
    const pools = Array.from({ length: 50 }, (_, index) => `pool-${index}`);
    const written = await Promise.all(pools.map((pool) => gardenlet.writeOSC(namespace, { pool })));
    for (const osc of written) assert.ok(unitNames(osc).includes("spegel.service"));
    assert.deepEqual(asked(), []);
  });

  it("is gone before the Shoot is, and does not touch the nodes of a Shoot that goes", async () => {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    const osc = await gardenlet.writeOSC(namespace);
    await gardenlet.syncCluster(namespace, ({ spec }) => {
      spec.shoot.metadata.deletionTimestamp = "2026-08-21T10:00:00Z";
    });
    // The cache of the webhook follows; until then the object is as good as before.
    const written = await gardenlet.writeOSC(namespace);
    assert.ok(unitNames(written).length <= unitNames(osc).length);
    await gardenlet.deleteExtension(namespace);
    await landscape.resourceManager.collectGarbage(namespace);
    assert.deepEqual(namesOf(await snapshot(namespace)), []);
  });

  it("sleeps with a hibernated Shoot and wakes up with it", async () => {
    const { gardenlet, seed } = landscape;
    const asleep = ({
      spec,
    }: {
      spec: { shoot: { spec: { hibernation?: { enabled: boolean } } } };
    }): void => {
      spec.shoot.spec.hibernation = { enabled: true };
    };
    const replicas = async (namespace: string): Promise<number> =>
      valueAt<number>(
        await seed.admin.find("apps/v1", "Deployment", BOOTSTRAPPER_NAME, namespace),
        "spec.replicas",
      );
    const namespace = await gardenlet.addShoot(asleep);
    landscape.resourceManager.unhealthy.set(SHOOT_RESOURCE_NAME, "the API server is away");
    try {
      await gardenlet.enable(namespace);
      await gardenlet.awaitReady(namespace); // created asleep, and nobody waits for the Shoot
      const osc = await gardenlet.writeOSC(namespace);
      assert.ok(unitNames(osc).includes("spegel.service"), "its nodes come up with the mirror");
      for (;;) if ((await replicas(namespace).catch(() => -1)) === 0) break;
    } finally {
      landscape.resourceManager.unhealthy.clear();
      await landscape.resourceManager.resync();
    }
    await gardenlet.syncCluster(namespace);
    await gardenlet.deploy(namespace);
    await gardenlet.awaitReady(namespace);
    assert.equal(await replicas(namespace), 1);
    await gardenlet.syncCluster(namespace, asleep);
    await gardenlet.deploy(namespace);
    await gardenlet.awaitReady(namespace);
    for (;;) if ((await replicas(namespace)) === 0) break;
    await gardenlet.syncCluster(namespace);
  });

  it("is let go by a Shoot that sleeps, and leaves it when it wakes up", async () => {
    const { gardenlet, resourceManager } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    await gardenlet.syncCluster(namespace, ({ spec }) => {
      (spec.shoot.spec as { hibernation?: object }).hibernation = { enabled: true };
    });
    resourceManager.asleep.add(namespace);
    try {
      await gardenlet.disable(namespace);
      await resourceManager.collectGarbage(namespace);
      const left = namesOf(await snapshot(namespace));
      assert.equal(left.length, 2, `its payload beside it: ${left}`);
      assert.ok(left.includes(`ManagedResource ${SHOOT_RESOURCE_NAME}`));
      await gardenlet.enable(namespace);
      await gardenlet.awaitReady(namespace); // nor does it hold up the Shoot that sleeps
    } finally {
      resourceManager.asleep.delete(namespace);
    }
    await gardenlet.syncCluster(namespace);
    await resourceManager.resync();
    await gardenlet.deploy(namespace);
    await gardenlet.awaitExtension(namespace, ({ status }) => status?.lastOperation?.type === "Reconcile");
    await gardenlet.awaitReady(namespace);
    const resources = await landscape.seed.admin.list(
      "resources.gardener.cloud/v1alpha1",
      "ManagedResource",
      namespace,
    );
    assert.deepEqual(
      resources.map(({ metadata }) => [metadata.name, metadata.deletionTimestamp]),
      [
        [SEED_RESOURCE_NAME, undefined],
        [SHOOT_RESOURCE_NAME, undefined],
      ],
    );
  });

  it("moves to another seed with the same authority and without touching the Shoot", async () => {
    const { gardenlet, seed } = landscape;
    const source = await gardenlet.addShoot();
    await gardenlet.enable(source);
    const before = statusOf(await gardenlet.awaitReady(source));
    const bundle = String(
      (await gardenlet.secretData(source, before["caBundleSecretName"] ?? ""))?.["bundle.crt"],
    );
    const role = await roleInShoot();
    const secrets = await seed.admin.list("v1", "Secret", source);
    const persisted = secrets.filter(({ metadata }) => metadata.labels?.["persist"] === "true");
    assert.equal(persisted.length, 1, "the authority goes into the ShootState");
    await gardenlet.deploy(source, "migrate");
    const migrated = await gardenlet.awaitReady(source);
    assert.deepEqual(migrated.metadata.finalizers ?? [], []);
    assert.equal(migrated.status?.lastOperation?.type, "Migrate");
    await gardenlet.deleteExtension(source);
    assert.equal((await roleInShoot())?.metadata.uid, role?.metadata.uid, "the Shoot keeps what it has");
    assert.deepEqual(
      await seed.admin.list("resources.gardener.cloud/v1alpha1", "ManagedResource", source),
      [],
    );

    const target = await gardenlet.addShoot(({ spec }) => {
      if (spec.seed?.spec.ingress) spec.seed.spec.ingress.domain = "ingress.other.seed.example.org";
    });
    for (const { apiVersion, kind, metadata, ...rest } of persisted) {
      const { name, labels } = metadata;
      await seed.admin.apply(
        { ...rest, apiVersion, kind, metadata: { name, labels, namespace: target } },
        "gardenlet",
      );
    }
    await gardenlet.client.mergePatch(
      { group: "", version: "v1", plural: "namespaces", kind: "Namespace", namespaced: false },
      { name: target },
      { metadata: { labels: { "extensions.gardener.cloud/registry-spegel": "true" } } },
      landscape,
    );
    await gardenlet.deploy(target, "restore");
    const restored = await gardenlet.awaitReady(target);
    assert.equal(restored.status?.lastOperation?.type, "Restore");
    const after = statusOf(restored);
    assert.match(after["bootstrapURL"] ?? "", /ingress\.other\.seed/);
    assert.equal(
      String((await gardenlet.secretData(target, after["caBundleSecretName"] ?? ""))?.["bundle.crt"]),
      bundle,
    );
    const osc = await gardenlet.writeOSC(target);
    assert.match(JSON.stringify(osc), /ingress\.other\.seed/);
  });

  it("lets go at once of a Shoot that is deleted by force", async () => {
    const { gardenlet, seed } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    // Nobody finalizes: the resource manager of the Shoot is gone.
    const resources = await seed.admin.list(
      "resources.gardener.cloud/v1alpha1",
      "ManagedResource",
      namespace,
    );
    for (const resource of resources) {
      await seed.admin.mergePatch(resource, { metadata: { finalizers: ["example.org/stuck"] } });
    }
    await gardenlet.syncCluster(namespace, ({ spec }) => {
      spec.shoot.metadata.annotations = { "confirmation.gardener.cloud/force-deletion": "true" };
    });
    await gardenlet.deleteExtension(namespace);
    const left = await seed.admin.list("resources.gardener.cloud/v1alpha1", "ManagedResource", namespace);
    for (const resource of left) {
      assert.ok(resource.metadata.deletionTimestamp, "marked, for gardenlet to finalize");
      await seed.admin.mergePatch(resource, { metadata: { finalizers: null } });
    }
  });

  it("does nothing for Shoots with a control plane of their own, without nodes, or that have failed", async () => {
    const { gardenlet } = landscape;
    const selfHosted = await gardenlet.addShoot(({ spec }) => {
      spec.shoot.spec.provider.workers = [{ name: "worker" }, { name: "control-plane", controlPlane: {} }];
    });
    await gardenlet.enable(selfHosted);
    await gardenlet.awaitReady(selfHosted);
    assert.deepEqual(namesOf(await snapshot(selfHosted)), []);
    assert.doesNotMatch(JSON.stringify(await gardenlet.writeOSC(selfHosted)), /spegel/);
    const workerless = await gardenlet.addShoot(({ spec }) => {
      spec.shoot.spec.provider.workers = [];
    });
    await gardenlet.enable(workerless);
    const idle = await gardenlet.awaitReady(workerless);
    assert.equal(idle.status?.providerStatus, undefined);
    assert.deepEqual(namesOf(await snapshot(workerless)), []);
    const failed = await gardenlet.addShoot(({ spec }) => {
      spec.shoot.status["lastOperation"] = { state: "Failed" };
    });
    await gardenlet.enable(failed);
    const other = await gardenlet.addShoot();
    await gardenlet.enable(other);
    await gardenlet.awaitReady(other);
    assert.equal((await gardenlet.extension(failed))?.status, undefined);
    await gardenlet.syncCluster(failed);
    await gardenlet.deploy(failed);
    await gardenlet.awaitReady(failed);
  });

  // What follows writes no other objects than those above.
  if (customResources !== "own") return;

  it("says what is wrong with any providerConfig that it cannot use", async () => {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace, { ...CONFIG, kind: "Config" });
    for (const [change, says] of [
      [{ kind: "Config" }, /providerConfig\.kind/],
      [{ apiVersion: "spegel.extensions.gardener.cloud/v2" }, /providerConfig\.apiVersion/],
      [{ registryPort: "5000" }, /providerConfig\.registryPort/],
      [{ routerPort: 70_000 }, /providerConfig\.routerPort/],
      [{ registryPort: 5001 }, /5001/],
      [{ registryPort: [] }, /providerConfig\.registryPort/],
    ] as const) {
      await gardenlet.deploy(namespace, "reconcile", { ...CONFIG, ...change });
      // The error of a try before stays while the next one is under way.
      const { status } = await gardenlet.awaitExtension(
        namespace,
        ({ status: { lastError, lastOperation } = {} }) =>
          lastOperation?.state === "Error" && says.test(lastError?.description ?? ""),
      );
      assert.deepEqual(status?.lastError?.codes, ["ERR_CONFIGURATION_PROBLEM"]);
    }
    await gardenlet.deploy(namespace);
    assert.deepEqual((await gardenlet.awaitReady(namespace)).status?.lastError, undefined);
  });

  it("says what is wrong with a Cluster, and goes on once it is right", async () => {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot(({ spec }) => {
      if (spec.seed) spec.seed.spec = {};
    });
    await gardenlet.enable(namespace);
    const failed = await gardenlet.awaitExtension(namespace, ({ status }) => status?.lastError !== undefined);
    assert.match(failed.status?.lastError?.description ?? "", /ingress\.domain/);
    await gardenlet.syncCluster(namespace);
    await gardenlet.deploy(namespace);
    await gardenlet.awaitReady(namespace);
    await gardenlet.client.delete(CLUSTERS, { name: namespace }, landscape);
    await gardenlet.deploy(namespace);
    const lost = await gardenlet.awaitExtension(namespace, ({ status }) => status?.lastError !== undefined);
    assert.match(lost.status?.lastError?.description ?? "", /namespace .* has no Cluster/);
  });

  it("takes a Cluster without a seed for a Shoot that hosts itself", async () => {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot(({ spec }) => void delete spec.seed);
    await gardenlet.enable(namespace);
    const { status } = await gardenlet.awaitReady(namespace);
    assert.match(status?.lastOperation?.description ?? "", /the Shoot is self-hosted/);
    assert.deepEqual(namesOf(await snapshot(namespace)), []);
  });

  it("makes Secrets again that somebody deleted, and its status names the new ones", async () => {
    const { gardenlet, seed } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    const before = statusOf(await gardenlet.awaitReady(namespace));
    for (const secret of await seed.admin.list("v1", "Secret", namespace)) await seed.admin.delete(secret);
    await gardenlet.deploy(namespace);
    const after = statusOf(await gardenlet.awaitReady(namespace));
    assert.notEqual(after["clientSecretName"], before["clientSecretName"]);
    const read = async (name: string | undefined, key: string): Promise<string> =>
      String((await gardenlet.secretData(namespace, name ?? ""))?.[key]);
    const authorities = parseCertificates(await read(after["caBundleSecretName"], "bundle.crt"));
    const client = parseCertificate(await read(after["clientSecretName"], "tls.crt"));
    assert.ok(isIssuedBy(client, authorities, Date.now()));
    assert.match(
      JSON.stringify(await gardenlet.writeOSC(namespace)),
      new RegExp(`${after["clientSecretName"]}`),
    );
    assert.deepEqual(await landscape.resourceManager.collectGarbage(namespace), []);
  });

  it("starts from whatever a status is left with, and lets no node have half of one", async () => {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    const whole = statusOf(await gardenlet.awaitReady(namespace));
    const halves: readonly (readonly [status: object, says: RegExp | undefined])[] = [
      [{ providerStatus: null }, /no providerStatus yet/],
      [{ providerStatus: { bootstrapURL: null } }, /must have required property 'bootstrapURL'/],
      [{ providerStatus: { clientSecretName: null } }, /must have required property 'clientSecretName'/],
      [{ providerStatus: { registryPort: 5001 } }, /two of its ports are equal/],
      // Whole, and more: a webhook may be older than the leader while replicas are replaced.
      [{ providerStatus: { fieldOfALaterVersion: 1 } }, undefined],
    ];
    const name = { namespace, name: EXTENSION_TYPE };
    const write = (status: object): Promise<Extension> =>
      gardenlet.client.mergePatchStatus(EXTENSIONS, name, { status }, landscape);
    for (const [status, says] of halves) {
      await write({ ...status, observedGeneration: null });
      if (says === undefined)
        assert.ok(unitNames(await gardenlet.writeOSC(namespace)).includes("spegel.service"));
      else await assert.rejects(gardenlet.writeOSC(namespace), says);
      await write({ lastOperation: null });
      await gardenlet.deploy(namespace);
      assert.deepEqual(statusOf(await gardenlet.awaitReady(namespace)), whole);
      assert.ok(unitNames(await gardenlet.writeOSC(namespace)).includes("spegel.service"));
    }
  });

  it("says which deployed object is not healthy, and succeeds when it is", async () => {
    const { gardenlet, resourceManager } = landscape;
    const namespace = await gardenlet.addShoot();
    resourceManager.unhealthy.set(
      SEED_RESOURCE_NAME,
      "Deployment registry-spegel-bootstrapper: no pod is ready",
    );
    try {
      await gardenlet.enable(namespace);
      await gardenlet.awaitExtension(
        namespace,
        ({ status }) => status?.lastOperation?.state === "Processing",
      );
      await assert.rejects(gardenlet.writeOSC(namespace), /no providerStatus yet/);
    } finally {
      resourceManager.unhealthy.clear();
    }
    for (;;) {
      const { length } = await landscape.seed.admin.list(
        "resources.gardener.cloud/v1alpha1",
        "ManagedResource",
        namespace,
      );
      if (length === 2) break;
    }
    await resourceManager.resync();
    await gardenlet.awaitReady(namespace);
  });

  it("takes over objects of others with its names where it may, and says so where it must not", async () => {
    const { gardenlet, seed } = landscape;
    const namespace = await gardenlet.addShoot();
    const foreign = { apiVersion: "resources.gardener.cloud/v1alpha1", kind: "ManagedResource" };
    await seed.admin.apply(
      { ...foreign, metadata: { name: SEED_RESOURCE_NAME, namespace }, spec: { secretRefs: [] } },
      "somebody",
    );
    await seed.admin.apply(
      {
        apiVersion: "v1",
        kind: "Secret",
        metadata: { name: SHOOT_ACCESS_SECRET_NAME, namespace },
        stringData: { token: "eyold" },
      },
      "somebody",
    );
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    const resource = await seed.admin.find(foreign.apiVersion, foreign.kind, SEED_RESOURCE_NAME, namespace);
    assert.equal(valueAt(resource, "spec.class"), "seed");
    const access = await gardenlet.secretData(namespace, SHOOT_ACCESS_SECRET_NAME);
    assert.equal(String(access?.["token"]), "eyold", "the data is the token requestor's");
    assert.deepEqual((await gardenlet.extension(namespace))?.metadata.finalizers, [FINALIZER]);

    // Names of certificates follow what is in them: those of the next Shoot are known.
    const authority = (await seed.admin.list("v1", "Secret", namespace)).find(
      ({ metadata }) => metadata.labels?.["name"] === "ca-extension-registry-spegel",
    );
    const other = await gardenlet.addShoot();
    const metadata = { name: authority?.metadata.name ?? "", namespace: other };
    const taken = { apiVersion: "v1", kind: "Secret", metadata };
    await seed.admin.apply(taken, "somebody");
    await gardenlet.enable(other);
    const { status } = await gardenlet.awaitExtension(other, (each) => each.status?.lastError !== undefined);
    assert.match(
      status?.lastError?.description ?? "",
      new RegExp(`Secret ${metadata.name} exists without the labels of .*: delete it`),
    );
    await seed.admin.delete(taken);
    await gardenlet.awaitReady(other); // tried again without being asked
  });

  it("may do nothing beyond: objects of others and other kinds are closed to it", async () => {
    const { admin } = landscape.seed;
    const namespace = await landscape.gardenlet.addShoot();
    const token = await admin.requestToken({ namespace: installation.namespace, name: EXTENSION_NAME });
    const extensions = "/apis/extensions.gardener.cloud/v1alpha1";
    const resources = `/apis/resources.gardener.cloud/v1alpha1/namespaces/${namespace}/managedresources`;
    const webhooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    const merge = { contentType: "application/merge-patch+json", body: { metadata: { labels: { a: "b" } } } };
    for (const [method, path] of [
      ["PATCH", `${extensions}/namespaces/${namespace}/extensions/registry-cache`],
      ["PATCH", `${extensions}/namespaces/${namespace}/extensions/registry-cache/status`],
      ["DELETE", `${extensions}/namespaces/${namespace}/extensions/registry-spegel`],
      ["PATCH", `${extensions}/clusters/${namespace}`],
      ["GET", `${extensions}/namespaces/${namespace}/operatingsystemconfigs`],
      ["PATCH", `${resources}/extension-registry-cache`],
      ["DELETE", `${resources}/extension-registry-cache`],
      ["PATCH", `${webhooks}/gardener-extension-registry-cache`],
      ["DELETE", `${webhooks}/${EXTENSION_NAME}`],
      ["PATCH", `/api/v1/namespaces/${namespace}`],
      ["GET", `/api/v1/namespaces/${namespace}/pods`],
      ["GET", "/api/v1/nodes"],
      ["GET", `/api/v1/namespaces/${namespace}/configmaps`],
      ["GET", `/apis/apps/v1/namespaces/${namespace}/deployments`],
      ["PATCH", `/apis/coordination.k8s.io/v1/namespaces/${installation.namespace}/leases/other`],
      ["GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"],
    ] as const) {
      const { status } = await admin.call(method, path, { token, ...(method === "PATCH" && merge) });
      assert.equal(status, 403, `${method} ${path}`);
    }
  });

  it("is never refused anything: its rights suffice", () => {
    const refused = landscape.seed.front.requests.filter(
      ({ userAgent, status }) => userAgent.startsWith(EXTENSION_NAME) && (status === 401 || status === 403),
    );
    assert.deepEqual(refused, []);
  });
}
