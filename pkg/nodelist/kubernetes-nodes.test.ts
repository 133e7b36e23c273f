// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { type ApiObjectInit, type ApiServer, startApiServer } from "#kit/api-server";
import { createKubeClient, parseKubeConfig } from "#kube";
import { silentLogger } from "#log";
import { type KubernetesNodes, type NodeAddressEntry, openKubernetesNodes } from "./index.ts";

const signal = AbortSignal.timeout(30_000);

function node(name: string, status: object, metadata: object = {}): ApiObjectInit {
  const created = { name, creationTimestamp: "2026-11-20T10:00:00Z", ...metadata };
  return { apiVersion: "v1", kind: "Node", metadata: created, status };
}

const READY = { type: "Ready", status: "True" };
const internal = (...addresses: string[]): object[] =>
  addresses.map((address) => ({ type: "InternalIP", address }));

async function open(server: ApiServer, parts: AsyncDisposableStack): Promise<KubernetesNodes> {
  const connection = await parseKubeConfig(server.kubeconfig(), { directory: "/", source: "test" });
  const client = parts.use(createKubeClient(connection, { userAgent: "test" }));
  return parts.use(openKubernetesNodes({ client, logger: silentLogger }));
}

/** Lets the event loop turn until the nodes are as said. */
async function until(
  source: KubernetesNodes,
  isReached: (nodes: readonly NodeAddressEntry[]) => boolean,
): Promise<void> {
  while (!isReached(source.nodes() ?? [])) {
    signal.throwIfAborted();
    await nextTurn();
  }
}

describe("openKubernetesNodes", () => {
  it("keeps what the list needs of each node, and follows changes but not heartbeats", async () => {
    await using parts = new AsyncDisposableStack();
    const server = parts.use(await startApiServer({ plain: true }));
    server.seed([
      node("a", {
        addresses: [
          { type: "Hostname", address: "a" },
          { type: "InternalIP" },
          ...internal("10.0.0.1", "fd00::1"),
        ],
        conditions: [{ type: "MemoryPressure", status: "True" }, READY],
        images: [{ names: ["x"] }],
      }),
      node("b", { addresses: null, conditions: null }),
    ]);
    const source = await open(server, parts);
    assert.equal(source.nodes(), undefined);
    await source.synced({ signal });
    const first = source.nodes();
    assert.deepEqual(first, [
      {
        name: "a",
        addresses: ["10.0.0.1", "fd00::1"],
        isReady: true,
        isTerminating: false,
        createdAtMs: Date.parse("2026-11-20T10:00:00Z"),
      },
      {
        name: "b",
        addresses: [],
        isReady: false,
        isTerminating: false,
        createdAtMs: Date.parse("2026-11-20T10:00:00Z"),
      },
    ]);
    assert.equal(source.nodes(), first);

    const heartbeat = { ...READY, lastHeartbeatTime: "2026-11-20T10:05:00Z" };
    const addresses = internal("10.0.0.1", "fd00::1");
    server.seed([node("a", { addresses, conditions: [heartbeat] })]);
    server.seed([
      node("c", { addresses: internal("10.0.0.3"), conditions: [{ ...READY, status: "Unknown" }] }),
    ]);
    await until(source, (nodes) => nodes.some((each) => each.name === "c"));
    server.seed([node("a", { addresses, conditions: [heartbeat] }, { labels: { x: "y" } })]);
    const afterC = source.nodes();
    server.seed([
      node("b", { addresses: internal("10.0.0.2") }, { deletionTimestamp: "2026-11-20T11:00:00Z" }),
    ]);
    await until(source, (nodes) => nodes.some((each) => each.name === "b" && each.isTerminating));
    assert.notEqual(source.nodes(), afterC);
    server.remove("Node", "b");
    await until(source, (nodes) => nodes.length === 2);
    assert.deepEqual(
      source.nodes()?.map((each) => `${each.name} ${each.isReady}`),
      ["a true", "c false"],
    );
  });

  it("keeps the last nodes while the API server is away", async () => {
    await using parts = new AsyncDisposableStack();
    const server = await startApiServer({ plain: true });
    server.seed([node("a", { addresses: internal("10.0.0.1") })]);
    const source = await open(server, parts);
    await source.synced({ signal });
    await server[Symbol.asyncDispose]();
    assert.deepEqual(
      source.nodes()?.map((each) => each.name),
      ["a"],
    );
  });
});
