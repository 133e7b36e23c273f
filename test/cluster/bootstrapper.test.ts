// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { sleep } from "#async";
import { SHOOT_ACCESS_SECRET_NAME } from "#extension";
import { type Landscape, startLandscape } from "./landscape.ts";
import { createNodes } from "./nodes.ts";
import { askForNodes, type NodeCertificates } from "./poll-clients.ts";
import { type Installation, installExtension } from "./run-extension.ts";
import { startWorkload, type Workload } from "./stand-ins/workload.ts";

const NODE_COUNT = 1200;

describe("the bootstrapper of a large Shoot", { timeout: 200_000 }, () => {
  let landscape: Landscape;
  let installation: Installation;
  let namespace: string;
  let workload: Workload;
  let certificates: NodeCertificates;
  let host: string;
  const parts = new AsyncDisposableStack();

  before(async () => {
    landscape = parts.use(await startLandscape());
    installation = parts.use(await installExtension(landscape));
    parts.use(await installation.open());
    const { gardenlet } = landscape;
    namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    const extension = await gardenlet.awaitReady(namespace);
    await createNodes(landscape.shoot.admin, NODE_COUNT);
    workload = parts.use(await startWorkload(landscape, namespace));
    await workload.settled();
    const status = extension.status?.providerStatus as Record<string, string>;
    host = new URL(status["bootstrapURL"] ?? "").hostname;
    const bundle = await gardenlet.secretData(namespace, status["caBundleSecretName"] ?? "");
    const client = await gardenlet.secretData(namespace, status["clientSecretName"] ?? "");
    certificates = {
      ca: String(bundle?.["bundle.crt"]),
      cert: String(client?.["tls.crt"]),
      key: String(client?.["tls.key"]),
    };
  });
  after(() => parts.disposeAsync());

  const ask = () => askForNodes({ address: workload.address, host }, certificates);
  const addresses = async (): Promise<string[]> => (await ask()).flatMap(({ Addrs }) => [...Addrs]);

  it("hands out ten of its nodes, and follows what becomes of them", async (t) => {
    const startedMs = performance.now();
    const first = await addresses();
    const answerMs = performance.now() - startedMs;
    assert.equal(first.length, 10);
    for (const address of first) assert.match(address, /^\/ip4\/10\.250\.\d+\.\d+$/);
    const { admin } = landscape.shoot;
    const nodes = await admin.list("v1", "Node");
    const gone = nodes.find(({ status }) => {
      const { addresses: list } = status as { readonly addresses: readonly { readonly address: string }[] };
      return first.some((address) => address.endsWith(`/${list[0]?.address}`));
    });
    assert.ok(gone);
    const { address } = (gone["status"] as { addresses: { address: string }[] }).addresses[0] ?? {
      address: "",
    };
    await admin.delete(gone);
    while ((await addresses()).some((each) => each.endsWith(`/${address}`))) await sleep(20, landscape);
    const memory = await readFile(`/proc/${workload.pid}/status`, "utf8");
    const kib = (field: string): number => Number(new RegExp(`${field}:\\s+(\\d+)`).exec(memory)?.[1]);
    t.diagnostic(
      `${NODE_COUNT} nodes: answer with handshake ${answerMs.toFixed(0)} ms, RSS ${(kib("VmRSS") / 1024).toFixed(0)} MiB, anonymous ${(kib("RssAnon") / 1024).toFixed(0)} MiB`,
    );
  });

  it("still answers while the Shoot's API server is away, and follows it again afterwards", async () => {
    await landscape.shoot.server.kill();
    try {
      assert.equal((await addresses()).length, 10);
    } finally {
      await landscape.shoot.server.start(landscape);
    }
    const nodes = await landscape.shoot.admin.list("v1", "Node");
    for (const node of nodes.slice(0, 10)) await landscape.shoot.admin.delete(node);
    const before = new Set(
      nodes.slice(0, 10).map(({ status }) => JSON.stringify(status).match(/10\.250\.\d+\.\d+/)?.[0]),
    );
    while ((await addresses()).some((address) => before.has(address.split("/").at(-1))))
      await sleep(50, landscape);
  });

  it("may read nodes, and nothing else", async () => {
    const access = await landscape.gardenlet.secretData(namespace, SHOOT_ACCESS_SECRET_NAME);
    const token = String(access?.["token"]);
    const { admin } = landscape.shoot;
    const status = async (method: string, path: string, body?: object): Promise<number> =>
      (
        await admin.call(method, path, {
          token,
          ...(body && { body, contentType: "application/merge-patch+json" }),
        })
      ).status;
    assert.equal(await status("GET", "/api/v1/nodes?limit=1"), 200);
    const [node] = await admin.list("v1", "Node");
    assert.equal(await status("GET", `/api/v1/nodes/${node?.metadata.name}`), 200);
    for (const [method, path] of [
      ["GET", "/api/v1/secrets"],
      ["GET", "/api/v1/namespaces/kube-system/secrets"],
      ["GET", "/api/v1/pods"],
      ["GET", "/api/v1/namespaces/kube-system/configmaps"],
      ["GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"],
      ["DELETE", `/api/v1/nodes/${node?.metadata.name}`],
    ] as const) {
      assert.equal(await status(method, path), 403, `${method} ${path}`);
    }
    assert.equal(
      await status("PATCH", `/api/v1/nodes/${node?.metadata.name}`, { metadata: { labels: { a: "b" } } }),
      403,
    );
    const review = await admin.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {
      token,
      body: {
        kind: "SelfSubjectRulesReview",
        apiVersion: "authorization.k8s.io/v1",
        spec: { namespace: "kube-system" },
      },
    });
    const { resourceRules } = (
      review.body as { status: { resourceRules: { resources: string[]; verbs: string[] }[] } }
    ).status;
    const own = resourceRules.filter(
      ({ resources }) => !resources.every((each) => each.startsWith("selfsubject")),
    );
    assert.deepEqual(
      own.map(({ resources, verbs }) => ({ resources, verbs: verbs.toSorted() })),
      [{ resources: ["nodes"], verbs: ["get", "list", "watch"] }],
    );
  });
});
