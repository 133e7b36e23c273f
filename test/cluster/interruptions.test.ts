// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { sleep } from "#async";
import { BOOTSTRAPPER_NAME, EXTENSION_NAME } from "#extension";
import type { FrontRequest, Passage } from "../kit/kube-parts/index.ts";
import { type Landscape, startLandscape } from "./landscape.ts";
import { installExtension } from "./run-extension.ts";
import { webhookAnswers } from "./webhook-answers.ts";

/** What stays when something goes wrong. */
const KINDS = [
  ["v1", "Secret"],
  ["resources.gardener.cloud/v1alpha1", "ManagedResource"],
  ["apps/v1", "Deployment"],
  ["v1", "Service"],
] as const;
const MAX_TAKE_BACK_MS = 30_000;
const isOurs = ({ userAgent }: FrontRequest): boolean => userAgent.startsWith(EXTENSION_NAME);
const isWrite = ({ method }: FrontRequest): boolean => method !== "GET";

describe("interrupted at any of its writes, the extension", { timeout: 280_000 }, () => {
  let landscape: Landscape;
  const parts = new AsyncDisposableStack();

  before(async () => {
    landscape = parts.use(await startLandscape());
  });
  after(() => parts.disposeAsync());

  /** The API server may let an Extension go although it just got its finalizer: then gardenlet does not wait. */
  async function awaitNothingLeft(namespace: string, after: string): Promise<void> {
    const { seed, resourceManager } = landscape;
    const untilMs = performance.now() + MAX_TAKE_BACK_MS;
    for (;;) {
      await resourceManager.collectGarbage(namespace);
      const lists = KINDS.map(([apiVersion, kind]) => seed.admin.list(apiVersion, kind, namespace));
      const left = (await Promise.all(lists)).flat().map(({ kind, metadata }) => `${kind} ${metadata.name}`);
      if (left.length === 0) return;
      if (performance.now() > untilMs) assert.deepEqual(left, [], after);
      await sleep(20, landscape);
    }
  }

  it("leaves nothing of a Shoot that is deleted at any write of its creation", async (t) => {
    const { gardenlet, seed } = landscape;
    await using installation = await installExtension(landscape);
    await using _replica = await installation.open();
    /** By namespace: writes until the deletion, and the deletion. */
    const plans = new Map<string, { left: number; deletion?: Promise<void> }>();
    seed.front.gate = (request) => {
      const namespace = /\/(shoot--[^/]+)\//.exec(request.path)?.[1] ?? "";
      const plan = plans.get(namespace);
      if (plan !== undefined && isOurs(request) && isWrite(request) && --plan.left === 0)
        plan.deletion = gardenlet.deleteExtension(namespace);
      return "pass";
    };
    let points = 0;
    let next = 1;
    let isThrough = false;
    const worker = async (): Promise<void> => {
      while (!isThrough) {
        const stopAt = next++;
        const namespace = await gardenlet.addShoot();
        const plan: { left: number; deletion?: Promise<void> } = { left: stopAt };
        plans.set(namespace, plan);
        await gardenlet.enable(namespace);
        while (plan.deletion === undefined) {
          const extension = await gardenlet.extension(namespace);
          if (extension?.status?.lastOperation?.state === "Succeeded") break;
          await sleep(20, landscape);
        }
        if (plan.deletion === undefined) isThrough = true;
        else points++;
        await (plan.deletion ?? gardenlet.deleteExtension(namespace));
        await awaitNothingLeft(namespace, `write ${stopAt}`);
      }
    };
    try {
      await Promise.all([worker(), worker(), worker(), worker()]);
    } finally {
      seed.front.gate = undefined;
    }
    t.diagnostic(`${points} points of deletion`);
    assert.ok(points >= 10);
  });

  /** Cuts the extension off at its `stopAt`th write: before the API server sees it, or before it hears the answer. */
  function crashAt(
    stopAt: number,
    last: "refuse" | "swallow",
  ): { readonly crashed: Promise<void>; readonly writes: () => number } {
    const crash = Promise.withResolvers<void>();
    let writes = 0;
    landscape.seed.front.gate = (request): Passage => {
      if (!isOurs(request) || request.path.includes("mutatingwebhook")) return "pass";
      if (writes >= stopAt) return "refuse";
      if (!isWrite(request) || !request.path.includes("/shoot--")) return "pass";
      if (++writes < stopAt) return "pass";
      crash.resolve();
      return last;
    };
    return { crashed: crash.promise, writes: () => writes };
  }

  const operations = ["create", "delete", "migrate"] as const;
  for (const operation of operations) {
    it(`ends in the right state when it dies at any write of a ${operation}`, async (t) => {
      const { gardenlet, seed, resourceManager } = landscape;
      await using installation = await installExtension(landscape);
      let points = 0;
      for (let stopAt = 1; ; stopAt++) {
        const namespace = await gardenlet.addShoot();
        if (operation !== "create") {
          await using _healthy = await installation.open();
          await gardenlet.enable(namespace);
          await gardenlet.awaitReady(namespace);
        }
        const { crashed, writes } = crashAt(stopAt, stopAt % 2 === 0 ? "refuse" : "swallow");
        const replica = await installation.open();
        const finished = act(operation, namespace);
        await Promise.race([crashed, finished]);
        await replica[Symbol.asyncDispose]();
        seed.front.gate = undefined;
        const isThrough = writes() < stopAt;
        if (!isThrough) points++;
        {
          await using _successor = await installation.open();
          await finished;
          await expectOutcome(operation, namespace);
          if (operation === "create") await gardenlet.deleteExtension(namespace);
          if (operation === "migrate") await gardenlet.deleteExtension(namespace);
        }
        await resourceManager.collectGarbage(namespace);
        const left = await seed.admin.list("v1", "Secret", namespace);
        const expected = operation === "migrate" ? /^(ca-extension-)?registry-spegel/ : /^$/;
        for (const { metadata } of left) assert.match(metadata.name, expected, `write ${stopAt}`);
        assert.deepEqual(await seed.admin.list("apps/v1", "Deployment", namespace), [], `write ${stopAt}`);
        if (isThrough) break;
      }
      t.diagnostic(`${points} points of death`);
      assert.ok(points >= 4);
    });
  }

  /** What gardenlet asks for; resolves when it is satisfied. */
  async function act(operation: (typeof operations)[number], namespace: string): Promise<void> {
    const { gardenlet } = landscape;
    if (operation === "create") await gardenlet.enable(namespace);
    if (operation === "delete") return await gardenlet.deleteExtension(namespace);
    if (operation === "migrate") await gardenlet.deploy(namespace, "migrate");
    await gardenlet.awaitReady(namespace);
  }

  async function expectOutcome(operation: (typeof operations)[number], namespace: string): Promise<void> {
    const { gardenlet, seed } = landscape;
    const extension = await gardenlet.extension(namespace);
    if (operation === "delete") return assert.equal(extension, undefined);
    if (operation === "migrate") return assert.deepEqual(extension?.metadata.finalizers ?? [], []);
    assert.deepEqual(extension?.metadata.finalizers, ["extensions.gardener.cloud/registry-spegel"]);
    assert.ok(await seed.admin.find("apps/v1", "Deployment", BOOTSTRAPPER_NAME, namespace));
    await webhookAnswers(landscape, namespace, "after");
  }
});
