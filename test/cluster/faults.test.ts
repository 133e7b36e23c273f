// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { sleep } from "#async";
import { EXTENSION_NAME, SEED_RESOURCE_NAME } from "#extension";
import { validateOSC } from "#kit/node-agent";
import { LEASES } from "#kube";
import type { FrontRequest } from "../kit/kube-parts/index.ts";
import { type Landscape, startLandscape } from "./landscape.ts";
import { type Installation, installExtension } from "./run-extension.ts";
import { webhookAnswers } from "./webhook-answers.ts";

const LEASE = `${EXTENSION_NAME}-leader-election`;
const isOurs = ({ userAgent }: FrontRequest): boolean => userAgent.startsWith(EXTENSION_NAME);

describe("when things go wrong, the extension", { timeout: 280_000 }, () => {
  let landscape: Landscape;
  const parts = new AsyncDisposableStack();

  before(async () => {
    landscape = parts.use(await startLandscape());
  });
  after(() => parts.disposeAsync());

  async function holder(installation: Installation): Promise<string> {
    const name = { namespace: installation.namespace, name: LEASE };
    const lease = await landscape.gardenlet.client.find(LEASES, name, landscape);
    return lease?.spec?.holderIdentity ?? "";
  }

  it("goes on with its second replica while the first one stops, without one refused node configuration", async () => {
    const { gardenlet } = landscape;
    await using installation = await installExtension(landscape);
    // Both make certificates at once: nobody was here before.
    const [first, second] = await Promise.all([installation.spawn(), installation.spawn()]);
    await using stack = new AsyncDisposableStack();
    stack.use(first);
    stack.use(second);
    await installation.service.ready(2, landscape);
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    await webhookAnswers(landscape, namespace, "warm-up");
    const leader = await holder(installation);
    assert.notEqual(leader, "");
    let writes = 0;
    const stop = new AbortController();
    const writing = Promise.all(
      ["a", "b", "c", "d"].map(async (pool) => {
        while (!stop.signal.aborted) {
          const osc = await gardenlet.writeOSC(namespace, { pool });
          assert.deepEqual(validateOSC(osc), []);
          assert.match(JSON.stringify(osc), /spegel\.service/);
          writes++;
        }
      }),
    );
    const enough = async (count: number): Promise<void> => {
      for (const goal = writes + count; writes < goal; ) {
        await Promise.race([sleep(10, landscape), writing.then(() => assert.fail("the writers ended"))]);
      }
    };
    await enough(40);
    const isFirstLeading = first.process.output.lines.some(({ text }) =>
      text.includes("leadership acquired"),
    );
    const [leading, other] = isFirstLeading ? [first, second] : [second, first];
    assert.ok(
      !other.process.output.lines.some(({ text }) => text.includes("leadership acquired")),
      "one leads",
    );
    const exit = await leading.process.stop();
    assert.equal(exit.code, 0);
    await enough(40);
    stop.abort();
    await writing;
    while ((await holder(installation)) === leader || (await holder(installation)) === "")
      await sleep(50, landscape);
    await gardenlet.deploy(namespace);
    await gardenlet.awaitReady(namespace);
    await gardenlet.deleteExtension(namespace);
  });

  it("takes up its work again when a leader was killed", async () => {
    const { gardenlet } = landscape;
    await using installation = await installExtension(landscape);
    const lease = ["--leader-election=false"];
    const first = await installation.spawn(lease);
    const namespace = await gardenlet.addShoot();
    landscape.resourceManager.unhealthy.set("extension-registry-spegel", "held up by the test");
    try {
      await gardenlet.enable(namespace);
      await gardenlet.awaitExtension(
        namespace,
        ({ status }) => status?.lastOperation?.state === "Processing",
      );
      first.process.kill("SIGKILL");
      await first.process.exited;
    } finally {
      landscape.resourceManager.unhealthy.clear();
      await first[Symbol.asyncDispose]();
    }
    await landscape.resourceManager.resync();
    await using _second = await installation.spawn(lease);
    await gardenlet.awaitReady(namespace);
    await webhookAnswers(landscape, namespace, "after");
    await gardenlet.deleteExtension(namespace);
  });

  it("outlives a crash of the API server and goes on as soon as it is back", async () => {
    const { gardenlet, seed } = landscape;
    await using installation = await installExtension(landscape);
    await using replica = await installation.spawn();
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    const other = await gardenlet.addShoot();
    await gardenlet.enable(other); // in the middle of its work
    await seed.server.kill();
    await seed.server.start(landscape);
    await gardenlet.awaitReady(other);
    await gardenlet.deploy(namespace);
    await gardenlet.awaitReady(namespace);
    await webhookAnswers(landscape, other, "after");
    assert.equal(
      replica.process.output.lines.filter(({ text }) => text.includes("leadership acquired")).length,
      1,
    );
    await gardenlet.deleteExtension(namespace);
    await gardenlet.deleteExtension(other);
  });

  it("gets over slow answers, cut connections, throttling and refusals", async () => {
    const { gardenlet, seed } = landscape;
    await using installation = await installExtension(landscape);
    await using _replica = await installation.open();
    const namespaces = await Promise.all(Array.from({ length: 5 }, () => gardenlet.addShoot()));
    const cut = setInterval(() => seed.front.dropConnections(), 700);
    let count = 0;
    seed.front.gate = (request) => (isOurs(request) && ++count % 13 === 0 ? "refuse" : "pass");
    const faults = [
      seed.front.inject({ method: "POST", path: /secrets/, times: 3 }, { status: 500 }),
      seed.front.inject({ method: "PATCH", path: /extensions\/registry-spegel/, times: 3 }, { status: 409 }),
      seed.front.inject(
        { method: "GET", path: /managedresources/, times: 3 },
        { status: 429, retryAfterSeconds: 0 },
      ),
      seed.front.inject({ path: /clusters\//, times: 5 }, { after: sleep(1000, landscape) }),
      seed.front.inject({ path: /extensions\?/, watch: true, times: 2 }, { status: 410 }),
    ];
    try {
      // gardenlet's own requests are cut as well; it tries again.
      for (const namespace of namespaces) await retry(() => gardenlet.enable(namespace));
      for (const namespace of namespaces) await retry(() => gardenlet.awaitReady(namespace));
    } finally {
      clearInterval(cut);
      seed.front.gate = undefined;
      for (const fault of faults) fault[Symbol.dispose]();
    }
    for (const namespace of namespaces) await gardenlet.deleteExtension(namespace);
  });

  async function retry<T>(action: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await action();
      } catch (error) {
        landscape.signal.throwIfAborted();
        const text = String(error);
        assert.match(text, /KubeError/, text);
      }
    }
  }

  it("does not act beside another leader: it ends, and its successor goes on", async () => {
    const { gardenlet } = landscape;
    await using installation = await installExtension(landscape);
    const timing = { lease: { leaseDurationMs: 2000, renewDeadlineMs: 1000, retryPeriodMs: 100 } };
    const first = await installation.open(["--leader-election=true"], timing);
    while ((await holder(installation)) === "") await sleep(20, landscape);
    const name = { namespace: installation.namespace, name: LEASE };
    const spec = { holderIdentity: "another", leaseDurationSeconds: 2 };
    await gardenlet.client.mergePatch(LEASES, name, { spec }, landscape);
    await assert.rejects(first.finished, { code: "KUBE_LEADERSHIP_LOST" });
    await first[Symbol.asyncDispose]();
    await using _second = await installation.open(["--leader-election=true"], timing);
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace); // once the other one's Lease has expired
    assert.notEqual(await holder(installation), "another");
    await gardenlet.deleteExtension(namespace);
  });

  it("waits for an API server that is away for longer than its Lease lives, and then goes on", async () => {
    const { gardenlet, seed } = landscape;
    await using installation = await installExtension(landscape);
    const timing = { lease: { leaseDurationMs: 2000, renewDeadlineMs: 1000, retryPeriodMs: 100 } };
    const first = await installation.open(["--leader-election=true"], timing);
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    seed.front.gate = (request) => (isOurs(request) ? "refuse" : "pass");
    try {
      await assert.rejects(first.finished, { code: "KUBE_LEADERSHIP_LOST" });
      await first[Symbol.asyncDispose]();
      // kubelet starts it again and again meanwhile: it is there, not ready, and tries.
      const starting = installation.open(["--leader-election=true"], timing);
      await gardenlet.deploy(namespace);
      const refusedCount = seed.front.requests.length;
      while (!seed.front.requests.slice(refusedCount).some(isOurs)) await sleep(20, landscape);
      assert.equal(installation.service.readyCount, 0);
      seed.front.gate = undefined;
      await using _second = await starting;
      await gardenlet.awaitReady(namespace);
      await webhookAnswers(landscape, namespace, "after");
      await gardenlet.deleteExtension(namespace);
    } finally {
      seed.front.gate = undefined;
    }
  });

  it("says which object never becomes healthy and why, and succeeds when it does", async () => {
    const { gardenlet, resourceManager } = landscape;
    await using installation = await installExtension(landscape);
    await using _replica = await installation.open([], { healthTimeoutMs: 500 });
    const namespace = await gardenlet.addShoot();
    resourceManager.unhealthy.set(
      SEED_RESOURCE_NAME,
      "Deployment registry-spegel-bootstrapper: no pod is ready",
    );
    try {
      await gardenlet.enable(namespace);
      const { status } = await gardenlet.awaitExtension(namespace, (each) =>
        /no pod is ready/.test(each.status?.lastError?.description ?? ""),
      );
      assert.match(
        status?.lastError?.description ?? "",
        /ManagedResource .*extension-registry-spegel .*ResourcesHealthy is False: Deployment registry-spegel-bootstrapper/,
      );
      assert.equal(status?.providerStatus, undefined, "no node is sent to it");
      await assert.rejects(gardenlet.writeOSC(namespace), /no providerStatus yet/);
    } finally {
      resourceManager.unhealthy.clear();
      await resourceManager.resync();
    }
    await gardenlet.awaitReady(namespace);
    await gardenlet.deleteExtension(namespace);
  });

  for (const skewMs of [-60_000, 60_000]) {
    it(`is understood with a clock that is ${skewMs / 1000} s off`, async () => {
      const { gardenlet } = landscape;
      await using installation = await installExtension(landscape);
      await using _replica = await installation.open([], { now: () => Date.now() + skewMs });
      const namespace = await gardenlet.addShoot();
      await gardenlet.enable(namespace);
      await gardenlet.awaitReady(namespace);
      await webhookAnswers(landscape, namespace, "skewed");
      await gardenlet.deploy(namespace);
      await gardenlet.awaitReady(namespace);
      await gardenlet.deleteExtension(namespace);
    });
  }
});
