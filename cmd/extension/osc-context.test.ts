// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import { type ApiObjectInit, readManifests, startApiServer } from "#kit/api-server";
import { createKubeClient, parseKubeConfig } from "#kube";
import { silentLogger } from "#log";
import { createOSCContextReader } from "./osc-context.ts";

test("the webhook sees a worker pool with a control plane, from the cache as well as live", async (t) => {
  await using seed = await startApiServer();
  const connection = await parseKubeConfig(seed.kubeconfig(), { directory: "/", source: "test" });
  await using client = createKubeClient(connection, { userAgent: "test" });
  const [example] = await readManifests(new URL("../../example/cluster.yaml", import.meta.url));
  const cluster = structuredClone(example) as ApiObjectInit & {
    spec: { shoot: { spec: { provider: { workers: object[] } } } };
  };
  cluster.spec.shoot.spec.provider.workers.push({ name: "control-plane", controlPlane: {} });
  seed.seed([cluster, { ...structuredClone(example), metadata: { name: "plain" } } as ApiObjectInit]);
  await using reader = createOSCContextReader({ client, logger: silentLogger });
  for (const from of ["live", "cache"]) {
    const own = await reader.load(cluster.metadata.name, { signal: t.signal });
    assert.ok(
      own?.cluster.spec?.shoot?.spec?.provider?.workers?.some((worker) => worker.controlPlane),
      from,
    );
    const plain = await reader.load("plain", { signal: t.signal });
    assert.equal(plain?.cluster.spec?.shoot?.spec?.provider?.workers?.length ?? 0, 0, from);
    while (!reader.clusters.hasSynced) await new Promise((resolve) => setTimeout(resolve, 2));
  }
});
