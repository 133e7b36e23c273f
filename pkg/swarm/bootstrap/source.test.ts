// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hasCode } from "#errors";
import { createDnsBootstrap } from "./dns.ts";
import { parseBootstrapPeer } from "./source.ts";
import { createStaticBootstrap } from "./static.ts";

const ID = "12D3KooWGRUfp5aa7gKGYFf4dXLnNFDRSr6NqxdKPXj9AnRnLGqZ";
const OTHER_ID = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB";
const { signal } = new AbortController();
const isInvalid = (error: unknown): boolean => hasCode(error, "SWARM_ADDRESS_INVALID");

describe("a bootstrap peer", () => {
  it("is an address with the port of this node's router unless it names one", () => {
    assert.deepEqual(
      parseBootstrapPeer(["/ip4/10.0.0.1", "/ip6/2001:db8::1/tcp/6000", "/dns4/node.test"], {
        id: ID,
        defaultPort: 5001,
      }),
      {
        id: ID,
        addresses: ["/ip4/10.0.0.1/tcp/5001", "/ip6/2001:db8::1/tcp/6000", "/dns4/node.test/tcp/5001"],
      },
    );
  });

  it("may carry its id in the address, or have none", () => {
    for (const text of [`/ip4/10.0.0.1/tcp/5001/p2p/${ID}`, `/ip4/10.0.0.1/p2p/${ID}`]) {
      assert.deepEqual(parseBootstrapPeer([text], { id: "", defaultPort: 5001 }), {
        id: ID,
        addresses: ["/ip4/10.0.0.1/tcp/5001"],
      });
    }
    assert.equal(parseBootstrapPeer(["/ip4/10.0.0.1"], { defaultPort: 5001 }).id, undefined);
  });

  it("is reached by TCP only", () => {
    const texts = [
      "/ip4/10.0.0.1/udp/5001/quic-v1",
      `/ip4/10.0.0.2/tcp/5001/p2p/${ID}/p2p-circuit`,
      "/ip4/10.0.0.3/tcp/5001/ws",
      "/ip4/10.0.0.4/tcp/5001",
    ];
    assert.deepEqual(parseBootstrapPeer(texts, { defaultPort: 1 }).addresses, ["/ip4/10.0.0.4/tcp/5001"]);
  });

  it("is refused when nothing of it can be dialled or it contradicts itself", () => {
    for (const [texts, id] of [
      [[], ""],
      [["10.0.0.1:5001"], ""],
      [["/ip4/300.0.0.1"], ""],
      [["/tcp/5001"], ""],
      [["/unix/tmp/x"], ""],
      [["/ip4/10.0.0.1/udp/1/quic-v1"], ""],
      [["/ip4/10.0.0.1"], "not an id"],
      [[`/ip4/10.0.0.1/tcp/1/p2p/${OTHER_ID}`], ID],
      [[`/ip4/10.0.0.1/tcp/1/p2p/${OTHER_ID}`, `/ip4/10.0.0.1/tcp/1/p2p/${ID}`], ""],
    ] as const) {
      assert.throws(() => parseBootstrapPeer(texts, { id, defaultPort: 5001 }), isInvalid, texts.join(" "));
    }
  });
});

describe("static bootstrap", () => {
  it("names what was written down, and refuses an address without a peer id at once", async () => {
    const source = createStaticBootstrap({ addresses: [`/ip4/10.0.0.1/p2p/${ID}`], defaultPort: 5001 });
    assert.deepEqual(await source.peers({ signal }), [{ id: ID, addresses: ["/ip4/10.0.0.1/tcp/5001"] }]);
    assert.throws(
      () => createStaticBootstrap({ addresses: ["/ip4/10.0.0.1/tcp/5001"], defaultPort: 5001 }),
      isInvalid,
    );
  });
});

describe("DNS bootstrap", () => {
  const options = { domain: "spegel.test", defaultPort: 5001 };
  const failing = async (): Promise<string[]> => {
    throw new Error("ENOTFOUND");
  };

  it("takes the addresses of both families, each once", async () => {
    const source = createDnsBootstrap(
      {
        resolve: async (_, family) => (family === 4 ? ["10.0.0.1", "10.0.0.1"] : ["2001:DB8::1"]),
        random: () => 0,
      },
      options,
    );
    const peers = await source.peers({ signal });
    assert.deepEqual(
      peers.map(({ addresses }) => addresses[0]).sort((a = "", b = "") => a.localeCompare(b)),
      ["/ip4/10.0.0.1/tcp/5001", "/ip6/2001:db8::1/tcp/5001"],
    );
    assert.ok(peers.every(({ id }) => id === undefined));
  });

  it("takes one family when the other fails, and fails when both do", async () => {
    const only4 = createDnsBootstrap(
      { resolve: (_, family) => (family === 4 ? Promise.resolve(["10.0.0.1"]) : failing()) },
      options,
    );
    assert.equal((await only4.peers({ signal })).length, 1);
    await assert.rejects(createDnsBootstrap({ resolve: failing }, options).peers({ signal }), (error) =>
      hasCode(error, "SWARM_BOOTSTRAP_FAILED"),
    );
  });

  it("takes ten of many addresses, and not always the same", async () => {
    const all = Array.from({ length: 200 }, (_, i) => `10.0.0.${i}`);
    const source = createDnsBootstrap({ resolve: async (_, family) => (family === 4 ? all : []) }, options);
    const seen = new Set<string>();
    for (let i = 0; i < 20; i++) {
      const peers = await source.peers({ signal });
      assert.equal(peers.length, 10);
      for (const { addresses } of peers) seen.add(addresses[0] ?? "");
    }
    assert.ok(seen.size > 50);
  });

  it("stops waiting for a resolver that hangs", async () => {
    const source = createDnsBootstrap({ resolve: () => new Promise(() => {}) }, options);
    const stop = new AbortController();
    const peers = source.peers({ signal: stop.signal });
    stop.abort(new Error("enough"));
    await assert.rejects(peers, { message: "enough" });
  });

  it("asks the system as other programs do", async () => {
    const peers = await createDnsBootstrap({}, { domain: "localhost", defaultPort: 5001 }).peers({ signal });
    assert.ok(
      peers.some(({ addresses }) => /^\/ip(4\/127\.0\.0\.1|6\/::1)\/tcp\/5001$/.test(addresses[0] ?? "")),
    );
  });
});
