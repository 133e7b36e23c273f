// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { hasCode } from "#errors";
import { binaryString } from "../key.ts";
import { createFrameReader } from "./frame.ts";
import {
  decodeMessage,
  decodePeer,
  encodeAddProviders,
  encodeMessage,
  encodePeer,
  idOfPeer,
  MessageType,
} from "./message.ts";

const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: 1, maxLength });

function unframe(framed: Uint8Array): Uint8Array {
  const reader = createFrameReader();
  reader.push(framed);
  const frame = reader.next();
  assert.ok(frame !== undefined && reader.bufferedBytes === 0);
  return frame;
}

const isInvalid = (error: unknown): boolean => hasCode(error, "SWARM_MESSAGE_INVALID");

describe("messages", () => {
  it("are read as they were written", () => {
    const message = fc.record({
      type: fc.integer({ min: 0, max: 5 }),
      key: bytes(80),
      closerPeers: fc.array(bytes(200), { maxLength: 20 }),
      providerPeers: fc.array(bytes(200), { maxLength: 20 }),
    });
    fc.assert(
      fc.property(message, (written) => {
        const read = decodeMessage(unframe(encodeMessage(written)));
        assert.equal(read.type, written.type);
        assert.deepEqual(Uint8Array.from(read.key ?? []), written.key);
        assert.deepEqual(
          read.closerPeers.map((peer) => Uint8Array.from(peer)),
          written.closerPeers,
        );
        assert.deepEqual(
          read.providerPeers.map((peer) => Uint8Array.from(peer)),
          written.providerPeers,
        );
      }),
    );
  });

  it("look on the wire as the protobuf of the specification", () => {
    const peer = encodePeer({
      id: Uint8Array.of(1, 2),
      addresses: [Uint8Array.of(4, 127, 0, 0, 1, 6, 0, 80)],
    });
    assert.equal(peer.toString("hex"), "0a020102" + "1208047f000001060050");
    const framed = encodeMessage({
      type: MessageType.ADD_PROVIDER,
      key: Uint8Array.of(9),
      providerPeers: [peer],
    });
    assert.equal(framed.toString("hex"), "15" + "0802" + "120109" + `4a0e${peer.toString("hex")}`);
    assert.equal(encodeMessage({ type: MessageType.PING }).toString("hex"), "020805");
  });

  it("are the same when many keys are written at once", () => {
    const keys = fc.array(fc.uint8Array({ minLength: 1, maxLength: 200 }), { maxLength: 20 });
    fc.assert(
      fc.property(keys, fc.uint8Array({ minLength: 1, maxLength: 300 }), (written, provider) => {
        const one = written.map((key) =>
          encodeMessage({ type: MessageType.ADD_PROVIDER, key, providerPeers: [provider] }),
        );
        assert.deepEqual(encodeAddProviders(written.map(binaryString), provider), Buffer.concat(one));
      }),
    );
  });

  it("may have fields that are not known here", () => {
    // clusterLevelRaw (10) as varint, a fixed64, a fixed32 and a record (3)
    const frame = Buffer.from(
      "0803" + "5005" + "59" + "00".repeat(8) + "65" + "00".repeat(4) + "1a03010203" + "120107",
      "hex",
    );
    const message = decodeMessage(frame);
    assert.equal(message.type, MessageType.GET_PROVIDERS);
    assert.deepEqual([...(message.key ?? [])], [7]);
  });

  it("are refused when they are cut, lie about a length or use another wire type", () => {
    for (const hex of ["08", "1205ff", "12ffffffff0f00", "0b", "0804ff", "8080808080808080808001"]) {
      assert.throws(() => decodeMessage(Buffer.from(hex, "hex")), isInvalid, hex);
    }
  });

  it("are refused with more peers than anyone needs", () => {
    const frame = unframe(
      encodeMessage({
        type: MessageType.FIND_NODE,
        closerPeers: Array<Uint8Array>(1001).fill(Uint8Array.of(1)),
      }),
    );
    assert.throws(() => decodeMessage(frame), isInvalid);
  });

  it("are read or refused, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (frame) => {
        try {
          for (const peer of decodeMessage(frame).providerPeers) decodePeer(peer);
        } catch (error) {
          assert.ok(isInvalid(error));
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("peers in messages", () => {
  it("need an id", () => {
    assert.throws(() => decodePeer(encodePeer({ id: new Uint8Array(0), addresses: [] })), isInvalid);
    assert.throws(() => decodePeer(Buffer.from("1201ff", "hex")), isInvalid);
  });

  it("tell their id without the rest, wherever it stands", () => {
    const peer = fc.record({ id: bytes(200), addresses: fc.array(bytes(40), { maxLength: 5 }) });
    const unknown = Uint8Array.of(0x18, 1); // field 3
    fc.assert(
      fc.property(peer, fc.boolean(), ({ id, addresses }, isLater) => {
        const encoded = encodePeer({ id, addresses });
        assert.equal(idOfPeer(isLater ? Buffer.concat([unknown, encoded]) : encoded), binaryString(id));
      }),
    );
    for (const malformed of [[], [0x0a], [0x0a, 0], [0x0a, 3, 1, 2], [0x12, 1, 1]])
      assert.throws(() => idOfPeer(Uint8Array.from(malformed)), isInvalid);
  });

  it("have at most 32 addresses that are looked at", () => {
    const encoded = encodePeer({
      id: Uint8Array.of(1),
      addresses: Array<Uint8Array>(1000).fill(Uint8Array.of(4)),
    });
    assert.equal(decodePeer(encoded).addresses.length, 32);
  });
});
