// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { MultiaddrConnection, PeerId } from "@libp2p/interface";
import { multiaddr } from "@multiformats/multiaddr";
import { createCrowdLimit } from "./crowd-limit.ts";
import { contactNumber } from "./testing/virtual-swarm.ts";

const from = (ip: string): MultiaddrConnection =>
  Object.assign(new EventTarget(), {
    remoteAddr: multiaddr(`/${ip.includes(":") ? "ip6" : "ip4"}/${ip}/tcp/4001`),
  }) as unknown as MultiaddrConnection;
const peer = (n: number): PeerId => contactNumber(n).peerId;

describe("what one address may take", () => {
  it("is a number of connections that are not yet anybody's, given back when they close or are", () => {
    const gate = createCrowdLimit({ connections: () => [] }, { maxPending: 2 });
    const [first, second] = [from("10.0.0.1"), from("10.0.0.1")];
    assert.equal(gate.denyInboundConnection(first), false);
    assert.equal(gate.denyInboundConnection(second), false);
    assert.equal(gate.denyInboundConnection(from("10.0.0.1")), true);
    assert.equal(gate.denyInboundConnection(from("10.0.0.2")), false);
    first.dispatchEvent(new Event("close"));
    assert.equal(gate.denyInboundConnection(from("10.0.0.1")), false);
    assert.equal(gate.denyInboundConnection(from("10.0.0.1")), true);
    assert.equal(gate.denyInboundEncryptedConnection(peer(1), second), false);
    second.dispatchEvent(new Event("close")); // its place was given back already
    assert.equal(gate.denyInboundConnection(from("10.0.0.1")), false);
    assert.equal(gate.denyInboundConnection(from("10.0.0.1")), true);
  });

  it("is a number of nodes, whoever dials, each with any number of connections", () => {
    const { remoteAddr } = from("10.0.0.1");
    const open = [1, 1, 2].map((n) => ({ remotePeer: peer(n), remoteAddr }));
    const gate = createCrowdLimit({ connections: () => open }, { maxNodes: 2 });
    for (const deny of [gate.denyInboundEncryptedConnection, gate.denyOutboundEncryptedConnection]) {
      assert.equal(deny(peer(3), from("10.0.0.1")), true);
      assert.equal(deny(peer(2), from("10.0.0.1")), false);
      assert.equal(deny(peer(3), from("10.0.0.2")), false);
    }
  });

  it("does not depend on the network: a cluster may live in one /24 or one /64", () => {
    for (const network of ["10.0.0.", "fd00:1:2:3::"]) {
      const open = Array.from({ length: 200 }, (_, n) => ({
        remotePeer: peer(n),
        remoteAddr: from(`${network}${n + 1}`).remoteAddr,
      }));
      const gate = createCrowdLimit({ connections: () => open }, { maxNodes: 2 });
      assert.equal(gate.denyInboundEncryptedConnection(peer(300), from(`${network}250`)), false);
    }
  });

  it("has no limit of nodes on loopback, where tests and trials live", () => {
    const open = [1, 2].map((n) => ({ remotePeer: peer(n), remoteAddr: from("127.0.0.1").remoteAddr }));
    const gate = createCrowdLimit({ connections: () => open }, { maxNodes: 2 });
    assert.equal(gate.denyInboundEncryptedConnection(peer(3), from("127.0.0.1")), false);
  });
});
