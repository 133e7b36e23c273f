// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { Extension } from "#api/gardener";
import { type ApiObjectInit, type ApiServer, startApiServer } from "#kit/api-server";
import { createKubeClient, type KubeClient, parseKubeConfig } from "#kube";
import { silentLogger } from "#log";
import {
  DEFAULT_EXTENSION_OPTIONS,
  EXTENSIONS,
  type ExtensionControllerOptions,
  startExtensionController,
} from "./index.ts";

const NAMESPACE = "shoot--foo--bar";
const signal = AbortSignal.timeout(30_000);

/** Self-hosted Shoots: each run reports success and does nothing else. */
describe("the controller", () => {
  let parts: AsyncDisposableStack;
  let seed: ApiServer;
  let client: KubeClient;
  let nowMs: number;

  beforeEach(async () => {
    parts = new AsyncDisposableStack();
    nowMs = Date.UTC(2026, 7, 21, 10);
    seed = parts.use(await startApiServer({ plain: true }));
    const connection = await parseKubeConfig(seed.kubeconfig(), { directory: "/", source: "test" });
    client = parts.use(createKubeClient(connection, { userAgent: "test", requestsPerSecond: 100_000 }));
    seed.seed([
      {
        apiVersion: "v1",
        kind: "Namespace",
        metadata: { name: NAMESPACE, labels: { "gardener.cloud/role": "shoot" } },
      },
      cluster(1),
    ]);
  });
  afterEach(() => parts.disposeAsync());

  const cluster = (generation: number): ApiObjectInit =>
    ({
      apiVersion: "extensions.gardener.cloud/v1alpha1",
      kind: "Cluster",
      metadata: { name: NAMESPACE, generation },
      spec: { seed: null, shoot: { spec: {} } },
    }) as ApiObjectInit;
  const extension = (more: object = {}, name = "registry-spegel"): ApiObjectInit =>
    ({
      apiVersion: "extensions.gardener.cloud/v1alpha1",
      kind: "Extension",
      metadata: { name, namespace: NAMESPACE },
      spec: { type: "registry-spegel", ...more },
    }) as ApiObjectInit;
  const statusOf = (name = "registry-spegel"): Extension["status"] =>
    (seed.get("Extension", name, NAMESPACE) as unknown as Extension).status;
  const reportedAt = (): string | undefined => statusOf()?.lastOperation?.lastUpdateTime;

  function start(options: ExtensionControllerOptions = {}): void {
    parts.use(
      startExtensionController(
        {
          client,
          certificates: {
            ensure: () => Promise.reject(new Error("nobody needs certificates")),
            remove: () => Promise.resolve(),
          },
          decodeConfig: () => ({ registryPort: 5000, routerPort: 5001, metricsPort: 9090 }),
          logger: silentLogger,
          now: () => nowMs,
          options: { ...DEFAULT_EXTENSION_OPTIONS, bootstrapperImage: "b", nodeImage: "n" },
        },
        options,
      ),
    );
  }
  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      signal.throwIfAborted();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  const succeeded = (name?: string) => (): boolean => statusOf(name)?.lastOperation?.state === "Succeeded";

  it("acts on its own type and classes alone", async () => {
    seed.seed([
      extension({ type: "registry-cache" }, "registry-cache"),
      extension({ class: "garden" }, "other"),
    ]);
    seed.seed([extension()]);
    start();
    await until(succeeded());
    assert.equal(statusOf("registry-cache"), undefined);
    assert.equal(statusOf("other"), undefined);
  });

  it("acts on the classes that it was given", async () => {
    seed.seed([extension({ class: "garden" }, "other")]);
    start({ classes: ["garden"] });
    await until(succeeded("other"));
  });

  it("waits for gardenlet's annotation when a spec or a Cluster changes", async () => {
    seed.seed([extension()]);
    start({ workers: 1 });
    await until(succeeded());
    const before = reportedAt();
    nowMs += 60_000;
    seed.seed([cluster(2)]);
    const name = { namespace: NAMESPACE, name: "registry-spegel" };
    await client.mergePatch(EXTENSIONS, name, { spec: { providerConfig: {} } }, { signal });
    seed.seed([extension({}, "next")]);
    await until(succeeded("next")); // it has seen what came before
    assert.equal(reportedAt(), before);
    const metadata = { annotations: { "gardener.cloud/operation": "reconcile" } };
    await client.mergePatch(EXTENSIONS, name, { metadata }, { signal });
    await until(() => reportedAt() !== before);
  });

  it("follows specs and Clusters where it ignores the annotation", async () => {
    seed.seed([extension()]);
    start({ ignoreOperationAnnotation: true });
    await until(succeeded());
    let before = reportedAt();
    nowMs += 60_000;
    // A list that is under way may still miss it: until the watch has seen one.
    for (let generation = 2; reportedAt() === before; generation++) {
      seed.seed([cluster(generation)]);
      await new Promise((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
    }
    await until(succeeded());
    before = reportedAt();
    nowMs += 60_000;
    const name = { namespace: NAMESPACE, name: "registry-spegel" };
    await client.mergePatch(EXTENSIONS, name, { spec: { providerConfig: {} } }, { signal });
    await until(() => reportedAt() !== before);
  });
});
