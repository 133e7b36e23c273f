// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { silentLogger } from "#log";
import type { Peer } from "#routing";
import { eventually } from "#routing/testing";
import {
  type BootstrapSource,
  createDnsBootstrap,
  createHttpBootstrap,
  createStaticBootstrap,
  openSwarm,
  type Swarm,
  type SwarmOptions,
  serveBootstrapId,
  silentSwarmMetrics,
} from "#swarm";
import { buildGoPeer, type GoPeer, skipReason, startGoPeer } from "./go-peer.ts";

describe("a swarm with go-libp2p peers", { skip: skipReason() }, () => {
  const signal = AbortSignal.timeout(900_000);
  let executable: string;
  before(
    async () => {
      executable = await buildGoPeer();
    },
    { timeout: 900_000 },
  );

  const openNode = (
    bootstrap: readonly BootstrapSource[],
    options: Partial<SwarmOptions> = {},
  ): Promise<Swarm> =>
    openSwarm(
      { logger: silentLogger, metrics: silentSwarmMetrics, bootstrap },
      { routerAddress: "127.0.0.1:0", dataDirectory: undefined, signal, ...options },
    );
  const startPeer = (...args: string[]): Promise<GoPeer> => startGoPeer(executable, args);
  const newKey = (): string => `sha256:${randomUUID()}`;

  const bootstrapFrom = (peer: GoPeer): BootstrapSource =>
    createStaticBootstrap({ addresses: [`${peer.addresses[0]}/p2p/${peer.id}`], defaultPort: 1 });

  async function find(node: Swarm, key: string): Promise<Peer[]> {
    const found: Peer[] = [];
    for await (const peer of node.lookup(key, { count: 10, signal })) found.push(peer);
    return found;
  }

  async function findInGo(peer: GoPeer, key: string): Promise<string[]> {
    const found = (await peer.request({ op: "find", keys: [key], count: 0 })) as readonly {
      readonly ID: string;
    }[];
    return found.map(({ ID }) => ID);
  }

  /** Who the peer's own store names, without asking anybody. */
  const recordsIn = async (peer: GoPeer, key: string): Promise<string[]> =>
    (await peer.request({ op: "records", keys: [key] })) as string[];

  it("finds what a Go peer advertises", async () => {
    await using peer = await startPeer("-listen", "/ip4/127.0.0.5/tcp/0");
    await using node = await openNode([bootstrapFrom(peer)]);
    await eventually(node.ready, Boolean);
    const keys = [newKey(), "docker.io/library/busybox:1.37.0"];
    await peer.request({ op: "advertise", keys });
    for (const key of keys)
      assert.deepEqual(await find(node, key), [{ id: peer.id, addresses: ["127.0.0.5"] }]);
  });

  it("is found by a Go peer, with one key and with many", async () => {
    await using peer = await startPeer();
    await using node = await openNode([bootstrapFrom(peer)], { routerAddress: "127.0.0.6:0" });
    await eventually(node.ready, Boolean);
    const one = newKey();
    await node.advertise([one], { signal });
    assert.deepEqual(
      await eventually(
        () => recordsIn(peer, one),
        (ids) => ids.length > 0,
      ),
      [node.peerId],
    );
    assert.deepEqual(await findInGo(peer, one), [node.peerId]);
    const many = Array.from({ length: 600 }, newKey);
    await node.advertise(many, { signal });
    for (const key of many)
      assert.deepEqual(
        await eventually(
          () => recordsIn(peer, key),
          (ids) => ids.length > 0,
        ),
        [node.peerId],
      );
  });

  it("means the same by a key as Go: same content id, same place", async () => {
    await using peer = await startPeer();
    await using node = await openNode([bootstrapFrom(peer)]);
    const vectors = {
      foobar: "bafkreigdvoh7cnza5cwzar65hfdgwpejotszfqx2ha6uuolaofgk54ge6i",
      "docker.io/library/busybox:1.37.0": "bafkreifdixuobjojcs6sm3w52326ep262547uydcgu5g5vge432a5tk4na",
      "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855":
        "bafkreiadmttyx2evz34sjg4dwignwy3czu6dc72veqdgsysclc6ejgug7q",
    };
    for (const [key, cid] of Object.entries(vectors)) {
      assert.equal(await peer.request({ op: "cid", keys: [key] }), cid);
      await node.advertise([key], { signal });
      await eventually(
        () => recordsIn(peer, key),
        (ids) => ids.join() === node.peerId,
      );
    }
  });

  it("goes on with a Go peer that restarts with a new identity at its old address", async () => {
    await using node = await openNode([], { routerAddress: "127.0.0.14:0" });
    const addrs = [`${node.addresses()[0]}/p2p/${node.peerId}`];
    let listen: string;
    {
      await using old = await startPeer("-listen", "/ip4/127.0.0.15/tcp/0");
      await old.request({ op: "join", addrs });
      const key = newKey();
      await old.request({ op: "advertise", keys: [key] });
      await eventually(
        () => find(node, key),
        (peers) => peers.length === 1,
      );
      listen = old.addresses[0] as string;
    }
    await using renewed = await startPeer("-listen", listen);
    await renewed.request({ op: "join", addrs });
    const [theirs, ours] = [newKey(), newKey()];
    await renewed.request({ op: "advertise", keys: [theirs] });
    assert.deepEqual(
      await eventually(
        () => find(node, theirs),
        (peers) => peers.length > 0,
      ),
      [{ id: renewed.id, addresses: ["127.0.0.15"] }],
    );
    await node.advertise([ours], { signal });
    await eventually(
      () => recordsIn(renewed, ours),
      (ids) => ids.join() === node.peerId,
    );
  });

  it("stores a record of one Go peer for another", async () => {
    await using node = await openNode([]);
    await using holder = await startPeer("-listen", "/ip4/127.0.0.7/tcp/0");
    await using asker = await startPeer();
    const address = `${node.addresses()[0]}/p2p/${node.peerId}`;
    for (const peer of [holder, asker]) await peer.request({ op: "join", addrs: [address] });
    const key = newKey();
    await holder.request({ op: "advertise", keys: [key] });
    await eventually(
      () => findInGo(asker, key),
      (ids) => ids.includes(holder.id),
    );
  });

  it("stores a record of ours in a Go peer for another node of ours", async () => {
    await using peer = await startPeer();
    await using holder = await openNode([bootstrapFrom(peer)], { routerAddress: "127.0.0.8:0" });
    await eventually(holder.ready, Boolean);
    const key = newKey();
    await holder.advertise([key], { signal });
    await eventually(
      () => findInGo(peer, key),
      (ids) => ids.length > 0,
    );
    await using asker = await openNode([bootstrapFrom(peer)], { routerAddress: "127.0.0.9:0" });
    const found = await eventually(
      () => find(asker, key),
      (peers) => peers.length > 0,
    );
    assert.deepEqual(found, [{ id: holder.peerId, addresses: ["127.0.0.8"] }]);
  });

  it("lets a Go peer join by an address with and without an id, and by HTTP", async () => {
    await using node = await openNode([]);
    await using server = await serveBootstrapId(node, { host: "127.0.0.1", port: 0 });
    const address = node.addresses()[0] as string;
    for (const request of [
      { op: "join", addrs: [`${address}/p2p/${node.peerId}`] },
      { op: "join", addrs: [address] },
      { op: "joinhttp", url: `http://127.0.0.1:${server.port}/id` },
    ]) {
      await using peer = await startPeer();
      assert.equal(await peer.request(request), node.peerId);
    }
  });

  it("lets a Go peer join by HTTP when the list names no id", async () => {
    await using node = await openNode([]);
    await using list = await serveBootstrapId(
      { peerId: "", addresses: () => node.addresses() },
      { host: "127.0.0.1", port: 0 },
    );
    await using peer = await startPeer();
    assert.equal(
      await peer.request({ op: "joinhttp", url: `http://127.0.0.1:${list.port}/id` }),
      node.peerId,
    );
  });

  for (const [offered, args, whenGoDials, whenWeDial] of [
    ["TLS and Noise, as Spegel does", [], "/tls/1.0.0", "/noise"],
    ["TLS alone", ["-security", "tls"], "/tls/1.0.0", "/tls/1.0.0"],
    ["Noise alone", ["-security", "noise"], "/noise", "/noise"],
  ] as const)
    it(`shares keys in both directions with a Go peer that offers ${offered}, whoever dials and whether the id is known or not`, async () => {
      const share = async (node: Swarm, peer: GoPeer, security: string): Promise<void> => {
        const addrs = [`${node.addresses()[0]}/p2p/${node.peerId}`];
        const agreed = await peer.request({ op: "agreed", addrs });
        assert.deepEqual(agreed, { security, muxer: "/yamux/1.0.0", early: true });
        const [theirs, ours] = [newKey(), newKey()];
        await peer.request({ op: "advertise", keys: [theirs] });
        assert.deepEqual(
          await eventually(
            () => find(node, theirs),
            (peers) => peers.length > 0,
          ),
          [{ id: peer.id, addresses: ["127.0.0.19"] }],
        );
        await node.advertise([ours], { signal });
        await eventually(
          () => findInGo(peer, ours),
          (ids) => ids.join() === node.peerId,
        );
      };
      await using peer = await startPeer("-listen", "/ip4/127.0.0.19/tcp/0", ...args);
      const port = Number(peer.addresses[0]?.split("/").at(-1));
      const dns = createDnsBootstrap(
        { resolve: async (_domain, family) => (family === 4 ? ["127.0.0.19"] : []) },
        { domain: "spegel.test", defaultPort: port },
      );
      for (const source of [bootstrapFrom(peer), dns]) {
        await using node = await openNode([source], { routerAddress: "127.0.0.20:0" });
        await eventually(
          () => node.peerCount(),
          (count) => count === 1,
        );
        await share(node, peer, whenWeDial);
      }
      await using node = await openNode([], { routerAddress: "127.0.0.20:0" });
      for (const suffix of ["", `/p2p/${node.peerId}`]) {
        await using dialling = await startPeer("-listen", "/ip4/127.0.0.19/tcp/0", ...args);
        const joined = await dialling.request({ op: "join", addrs: [`${node.addresses()[0]}${suffix}`] });
        assert.equal(joined, node.peerId);
        await share(node, dialling, whenGoDials);
      }
    });

  const hasIpv6 = Object.values(networkInterfaces())
    .flat()
    .some((address) => address?.address === "::1");
  it("shares keys with Go over IPv6, in both directions", {
    skip: hasIpv6 ? false : "the machine has no IPv6 loopback address",
  }, async () => {
    await using peer = await startPeer("-listen", "/ip6/::1/tcp/0");
    await using node = await openNode([bootstrapFrom(peer)], { routerAddress: "[::1]:0" });
    await eventually(node.ready, Boolean);
    const [theirs, ours] = [newKey(), newKey()];
    await peer.request({ op: "advertise", keys: [theirs] });
    assert.deepEqual(await find(node, theirs), [{ id: peer.id, addresses: ["::1"] }]);
    await node.advertise([ours], { signal });
    await eventually(
      () => findInGo(peer, ours),
      (ids) => ids.includes(node.peerId),
    );
  });

  it("gives both addresses of a Go peer that listens on IPv4 and IPv6", {
    skip: hasIpv6 ? false : "the machine has no IPv6 loopback address",
  }, async () => {
    await using peer = await startPeer("-listen", "/ip4/127.0.0.17/tcp/0,/ip6/::1/tcp/0");
    await using node = await openNode([bootstrapFrom(peer)], { routerAddress: "127.0.0.18:0" });
    await eventually(node.ready, Boolean);
    const key = newKey();
    await peer.request({ op: "advertise", keys: [key] });
    const [found] = await find(node, key);
    assert.deepEqual([...(found?.addresses ?? [])].sort(), ["127.0.0.17", "::1"]);
  });

  it("joins a Go peer by a static address, by DNS without an id, and by HTTP without an id", async () => {
    await using peer = await startPeer("-listen", "/ip4/127.0.0.10/tcp/0");
    const port = Number(peer.addresses[0]?.split("/").at(-1));
    await using list = await serveBootstrapId(
      { peerId: "", addresses: () => ["/ip4/127.0.0.10"] },
      { host: "127.0.0.1", port: 0 },
    );
    const dns = createDnsBootstrap(
      { resolve: async (_domain, family) => (family === 4 ? ["127.0.0.10"] : []) },
      { domain: "spegel.test", defaultPort: port },
    );
    const http = createHttpBootstrap(
      { logger: silentLogger },
      { url: `http://127.0.0.1:${list.port}/id`, certificateDirectory: undefined, defaultPort: port },
    );
    for (const source of [bootstrapFrom(peer), dns, http]) {
      await using node = await openNode([source]);
      await eventually(
        () => node.peerCount(),
        (count) => count === 1,
      );
    }
  });

  it("goes around a Go peer that hangs, leaves it out, and takes it back", async () => {
    await using holder = await openNode([], { routerAddress: "127.0.0.14:0" });
    const address = `${holder.addresses()[0]}/p2p/${holder.peerId}`;
    await using peer = await startPeer("-listen", "/ip4/127.0.0.15/tcp/0");
    const join = createStaticBootstrap({
      addresses: [address, `${peer.addresses[0]}/p2p/${peer.id}`],
      defaultPort: 1,
    });
    await using node = await openNode([join], {
      routerAddress: "127.0.0.16:0",
      channel: { requestTimeoutMs: 100 },
    });
    await eventually(
      () => node.peerCount(),
      (count) => count === 2,
    );
    const [theirs, ours] = [newKey(), newKey()];
    await peer.request({ op: "advertise", keys: [theirs] });
    await eventually(
      () => find(node, theirs),
      (peers) => peers.length > 0,
    );
    await holder.advertise([ours], { signal });
    peer.hang(true);
    await eventually(
      () => find(node, ours),
      (peers) => peers.length === 1,
    );
    await eventually(
      async () => (await find(node, theirs)).length + node.peerCount(),
      (count) => count === 1,
    );
    peer.hang(false);
    await peer.request({ op: "join", addrs: [`${node.addresses()[0]}/p2p/${node.peerId}`] });
    await eventually(
      () => node.peerCount(),
      (count) => count === 2,
    );
    await eventually(
      () => find(node, theirs),
      (peers) => peers.length === 1,
    );
  });

  it("passes the check that a Go peer makes before it trusts a server", async () => {
    await using node = await openNode([]);
    await using peer = await startPeer();
    const addrs = [`${node.addresses()[0]}/p2p/${node.peerId}`];
    assert.equal(await peer.request({ op: "selfcheck", addrs }), 1);
    assert.equal(await peer.request({ op: "ping", addrs }), node.peerId);
  });

  it("has the same peer id as a Go peer with the same key file", async () => {
    const directory = await mkdtemp(join(tmpdir(), "interop-"));
    try {
      let ourId: string;
      {
        await using node = await openNode([], { dataDirectory: directory });
        ourId = node.peerId;
      }
      await using peer = await startPeer("-identity", join(directory, "private.key"));
      assert.equal(peer.id, ourId);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("forgets a Go peer's record when its time is over", async () => {
    let laterMs = 0;
    await using node = await openSwarm(
      {
        logger: silentLogger,
        metrics: silentSwarmMetrics,
        bootstrap: [],
        now: () => performance.now() + laterMs,
      },
      { routerAddress: "127.0.0.12:0", dataDirectory: undefined, signal },
    );
    await using holder = await startPeer("-listen", "/ip4/127.0.0.11/tcp/0");
    await using asker = await startPeer();
    const addrs = [`${node.addresses()[0]}/p2p/${node.peerId}`];
    await holder.request({ op: "join", addrs });
    const key = newKey();
    await holder.request({ op: "advertise", keys: [key] });
    const ask = (): Promise<unknown> => asker.request({ op: "ask", addrs, keys: [key] });
    await eventually(ask, (ids) => (ids as string[]).includes(holder.id));
    laterMs = 19 * 60_000 - 10_000;
    assert.deepEqual(await ask(), [holder.id]);
    laterMs = 19 * 60_000;
    assert.deepEqual(await ask(), []);
  });

  it("is forgotten by a Go peer when it does not renew its records, and kept as long as it does", async () => {
    await using peer = await startPeer("-validity", "1s");
    const announce = { intervalMs: 300 };
    await using node = await openNode([bootstrapFrom(peer)], { routerAddress: "127.0.0.13:0", announce });
    await eventually(node.ready, Boolean);
    const [kept, dropped] = [newKey(), newKey()];
    await node.advertise([kept, dropped], { signal });
    for (const key of [kept, dropped])
      await eventually(
        () => recordsIn(peer, key),
        (ids) => ids.includes(node.peerId),
      );
    await node.withdraw([dropped], { signal });
    await eventually(
      () => recordsIn(peer, dropped),
      (ids) => ids.length === 0,
    );
    assert.deepEqual(await recordsIn(peer, kept), [node.peerId]);
  });
});
