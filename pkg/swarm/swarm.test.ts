// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { hasCode } from "#errors";
import { silentLogger } from "#log";
import { createMetrics } from "#metrics";
import { describeRouterCompliance, eventually, type RouterPair } from "#routing/testing";
import {
  type BootstrapSource,
  createStaticBootstrap,
  createSwarmMetrics,
  openSwarm,
  type Swarm,
} from "./index.ts";
import { addressOf, find, openNode, testSignal as signal } from "./testing/nodes.ts";

async function openPair(order: "a first" | "b first"): Promise<RouterPair> {
  const first = await openNode(order === "a first" ? "127.0.0.2:0" : "127.0.0.3:0");
  const second = await openNode(order === "a first" ? "127.0.0.3:0" : "127.0.0.2:0", [addressOf(first)]);
  await eventually(
    () => first.peerCount() + second.peerCount(),
    (peers) => peers === 2,
  );
  const [a, b] = order === "a first" ? [first, second] : [second, first];
  return {
    a,
    b,
    addressOfA: "127.0.0.2",
    async [Symbol.asyncDispose]() {
      await a[Symbol.asyncDispose]();
      await b[Symbol.asyncDispose]();
    },
  };
}

describeRouterCompliance("a swarm where the searching node joined last", () => openPair("a first"));
describeRouterCompliance("a swarm where the searching node was first", () => openPair("b first"));

describe("a swarm", () => {
  const isAmong =
    (node: Swarm) =>
    (peers: readonly { readonly id: string }[]): boolean =>
      peers.some(({ id }) => id === node.peerId);

  it("of ten nodes finds every key from every node", async () => {
    const patienceMs = 60_000; // on a busy machine dials time out and are tried again
    await using stack = new AsyncDisposableStack();
    const nodes: Swarm[] = [];
    for (let i = 0; i < 10; i++) {
      const [first] = nodes;
      nodes.push(
        stack.use(await openNode(`127.0.1.${i + 1}:0`, first === undefined ? [] : [addressOf(first)])),
      );
    }
    await Promise.all(
      nodes.map((node, i) => node.advertise([`one of ${i}`, `two of ${i}`, "common"], { signal })),
    );
    for (const asker of nodes) {
      for (const [i, holder] of nodes.entries()) {
        if (holder === asker) continue;
        for (const key of [`one of ${i}`, `two of ${i}`]) {
          const found = await eventually(() => find(asker, key), isAmong(holder), patienceMs);
          assert.deepEqual(found, [{ id: holder.peerId, addresses: [`127.0.1.${i + 1}`] }]);
        }
      }
      const others = nodes.filter((node) => node !== asker).map(({ peerId }) => peerId);
      await eventually(
        async () => (await find(asker, "common", 20)).map(({ id }) => id).sort(),
        (ids) => ids.join() === others.sort().join(),
        patienceMs,
      );
    }
  });

  it("knows after a join what was advertised before it, on either side", async () => {
    await using first = await openNode("127.0.0.2:0");
    await first.advertise(["early on first"], { signal });
    let peers: string[] = [];
    const later: BootstrapSource = {
      name: "later",
      peers: async () => createStaticBootstrap({ addresses: peers, defaultPort: 1 }).peers({ signal }),
    };
    await using second = await openNode("127.0.0.3:0", later);
    await second.advertise(["early on second"], { signal });
    peers = [addressOf(first)];
    await eventually(() => find(second, "early on first"), isAmong(first));
    await eventually(() => find(first, "early on second"), isAmong(second));
  });

  it("takes in a node that begins before its bootstrap node", async () => {
    const directory = await mkdtemp(join(tmpdir(), "swarm-"));
    try {
      let target: string;
      {
        await using reserved = await openNode("127.0.0.4:0", [], { dataDirectory: directory });
        target = addressOf(reserved);
      }
      await using early = await openNode("127.0.0.3:0", [target]);
      assert.equal(early.ready(), false);
      const port = target.split("/")[4];
      await using late = await openNode(`127.0.0.4:${port}`, [], { dataDirectory: directory });
      await eventually(
        () => [early.ready(), late.ready()],
        ([a, b]) => a === true && b === true,
      );
      await late.advertise(["k"], { signal });
      await eventually(() => find(early, "k"), isAmong(late));
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("is one swarm when all nodes start at the same instant and know addresses alone", async () => {
    const ips = Array.from({ length: 8 }, (_, i) => `127.0.4.${i + 1}`);
    let port: string | undefined;
    {
      await using reserved = await openNode(`${ips[0]}:0`);
      port = reserved.addresses()[0]?.split("/")[4];
    }
    const everybody: BootstrapSource = {
      name: "everybody",
      peers: async () => ips.map((ip) => ({ id: undefined, addresses: [`/ip4/${ip}/tcp/${port}`] })),
    };
    await using stack = new AsyncDisposableStack();
    const nodes = await Promise.all(ips.map((ip) => openNode(`${ip}:${port}`, everybody)));
    for (const node of nodes) stack.use(node);
    await Promise.all(nodes.map((node, i) => node.advertise([`key of ${i}`], { signal })));
    for (const asker of nodes) {
      for (const [i, holder] of nodes.entries()) {
        if (holder !== asker) await eventually(() => find(asker, `key of ${i}`), isAmong(holder));
      }
    }
  });

  it("goes on with a node that returns under a new identity at its old address", async () => {
    await using first = await openNode("127.0.0.2:0");
    let port: string | undefined;
    {
      await using old = await openNode("127.0.0.3:0", [addressOf(first)]);
      await old.advertise(["k"], { signal });
      await eventually(() => find(first, "k"), isAmong(old));
      port = old.addresses()[0]?.split("/")[4];
    }
    await using renewed = await openNode(`127.0.0.3:${port}`, [addressOf(first)]);
    await renewed.advertise(["k"], { signal });
    const found = await eventually(
      () => find(first, "k"),
      (peers) => peers.length === 1 && isAmong(renewed)(peers),
    );
    assert.deepEqual(found, [{ id: renewed.peerId, addresses: ["127.0.0.3"] }]);
    // A lost connection is looked after a second later: until then the old identity may still be in the table.
    const peers = await eventually(
      () => first.peerCount(),
      (count) => count === 1,
    );
    assert.equal(peers, 1);
  });

  it("keeps a node that returns with its identity, and its keys", async () => {
    const directory = await mkdtemp(join(tmpdir(), "swarm-"));
    try {
      await using first = await openNode("127.0.0.2:0");
      let id = "";
      for (let start = 0; start < 3; start++) {
        await using node = await openNode("127.0.0.3:0", [addressOf(first)], { dataDirectory: directory });
        if (start > 0) assert.equal(node.peerId, id);
        id = node.peerId;
        await node.advertise([`start ${start}`], { signal });
        await eventually(() => find(first, `start ${start}`), isAmong(node));
      }
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("no longer names a node that has gone, although its records have not ended", async () => {
    await using first = await openNode("127.0.0.2:0");
    await using third = await openNode("127.0.0.4:0", [addressOf(first)]);
    {
      await using gone = await openNode("127.0.0.3:0", [addressOf(first)]);
      await gone.advertise(["k"], { signal });
      for (const node of [first, third]) await eventually(() => find(node, "k"), isAmong(gone));
    }
    for (const node of [first, third])
      await eventually(
        () => find(node, "k"),
        (peers) => peers.length === 0,
      );
  });

  it("forgets a withdrawn key on the node itself at once", async () => {
    await using first = await openNode("127.0.0.2:0", [], { providers: { validityMs: 1 } });
    await using second = await openNode("127.0.0.3:0", [addressOf(first)]);
    await second.advertise(["kept", "dropped"], { signal });
    for (const key of ["kept", "dropped"]) await eventually(() => find(first, key), isAmong(second));
    await second.withdraw(["dropped"], { signal });
    await eventually(
      () => find(first, "dropped"),
      (peers) => peers.length === 0,
    );
    await eventually(() => find(first, "kept"), isAmong(second));
  });

  it("renews records before they end", async () => {
    await using first = await openNode("127.0.0.2:0", [], { providers: { validityMs: 1000 } });
    await using second = await openNode("127.0.0.3:0", [addressOf(first)], { announce: { intervalMs: 200 } });
    await using third = await openNode("127.0.0.4:0", [addressOf(first)]);
    await second.advertise(["k"], { signal });
    for (let i = 0; i < 3; i++) {
      await eventually(() => find(first, "k"), isAmong(second));
      await eventually(() => find(third, "k"), isAmong(second));
    }
  });

  it("lets two nodes share one loopback address", async () => {
    await using first = await openNode("127.0.0.1:0");
    await using second = await openNode("127.0.0.1:0", [addressOf(first)]);
    await second.advertise(["k"], { signal });
    assert.deepEqual(await eventually(() => find(first, "k"), isAmong(second)), [
      { id: second.peerId, addresses: ["127.0.0.1"] },
    ]);
  });

  const hasIpv6 = Object.values(networkInterfaces())
    .flat()
    .some((address) => address?.address === "::1");
  it("works over IPv6", { skip: hasIpv6 ? false : "the machine has no IPv6 loopback address" }, async () => {
    await using first = await openNode("[::1]:0");
    await using second = await openNode("[::1]:0", [addressOf(first)]);
    await second.advertise(["k"], { signal });
    assert.deepEqual(await eventually(() => find(first, "k"), isAmong(second)), [
      { id: second.peerId, addresses: ["::1"] },
    ]);
  });

  it("is ready when its node is the only one, and not while others cannot be reached", async () => {
    await using alone = await openNode("127.0.0.2:0");
    await eventually(() => alone.ready(), Boolean);
    assert.equal(alone.peerCount(), 0);
    const nobody = `/ip4/127.0.0.9/tcp/1/p2p/${alone.peerId}`;
    await using waiting = await openNode("127.0.0.3:0", [nobody]);
    assert.equal(waiting.ready(), false);
    const itself: BootstrapSource = {
      name: "self",
      peers: async () => [{ id: undefined, addresses: self?.addresses() ?? [] }],
    };
    let self: Swarm | undefined;
    await using only = await openNode("127.0.0.4:0", itself);
    self = only;
    await eventually(() => only.ready(), Boolean);
  });

  it("announces no loopback and no link-local address when it listens everywhere", async () => {
    await using node = await openNode(":0");
    for (const address of node.addresses())
      assert.doesNotMatch(address, /\/(127\.|::1|fe80:|169\.254\.|0\.0\.0\.0)/);
    const hasOther = Object.values(networkInterfaces())
      .flat()
      .some(
        (address) =>
          address?.family === "IPv4" && !address.internal && !address.address.startsWith("169.254."),
      );
    if (hasOther) assert.match(node.addresses().join(), /\/ip4\/[\d.]+\/tcp\/\d+/);
  });

  it("says why it cannot start", async () => {
    await using first = await openNode("127.0.0.2:0");
    const port = first.addresses()[0]?.split("/")[4];
    await assert.rejects(openNode(`127.0.0.2:${port}`), (error) => hasCode(error, "SWARM_LISTEN_FAILED"));
    await assert.rejects(openNode("nonsense"), (error) => hasCode(error, "SWARM_ADDRESS_INVALID"));
    await assert.rejects(openNode("127.0.0.2:0", [], { signal: AbortSignal.abort() }), {
      name: "AbortError",
    });
  });

  it("is over when it is disposed: not ready, without peers, and quiet", async () => {
    const node = await openNode("127.0.0.2:0");
    await eventually(() => node.ready(), Boolean);
    await node[Symbol.asyncDispose]();
    assert.equal(node.ready(), false);
    assert.deepEqual(await find(node, "k"), []);
  });

  it("is measured under Spegel's name", async () => {
    const metrics = createMetrics();
    await using first = await openNode("127.0.0.2:0");
    await using second = await openSwarm(
      {
        logger: silentLogger,
        metrics: createSwarmMetrics(metrics),
        bootstrap: [createStaticBootstrap({ addresses: [addressOf(first)], defaultPort: 1 })],
      },
      { routerAddress: "127.0.0.3:0", dataDirectory: undefined, signal },
    );
    await first.advertise(["k"], { signal });
    await second.advertise(["own 1", "own 2"], { signal });
    await eventually(() => find(second, "k"), isAmong(first));
    const text = await eventually(
      () => metrics.render(),
      (rendered) => /spegel_swarm_provider_records [1-9]/.test(rendered),
    );
    assert.match(text, /spegel_resolve_duration_seconds_count\{router="libp2p"\} [1-9]/);
    assert.match(text, /^spegel_swarm_peers 1$/m);
    assert.match(text, /^spegel_swarm_own_keys 2$/m);
  });
});
