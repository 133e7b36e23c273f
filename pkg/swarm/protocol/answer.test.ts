// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { hasCode } from "#errors";
import { binaryBytes, binaryString, multihashOf } from "../key.ts";
import { createProviderStore } from "../provider-store.ts";
import { contactNumber, openPolicy, unframe } from "../testing/virtual-swarm.ts";
import { type AnswerDeps, answer } from "./answer.ts";
import {
  decodeMessage,
  decodePeer,
  encodeMessage,
  encodePeer,
  type KadMessage,
  MessageType,
} from "./message.ts";

const sender = contactNumber(1);
const self = contactNumber(0);
const key = multihashOf("k");

function open(
  overrides: Partial<AnswerDeps> = {},
): AnswerDeps & { ask(message: Parameters<typeof encodeMessage>[0]): KadMessage | undefined } {
  const deps: AnswerDeps = {
    self: () => self,
    contacts: () => [],
    isOwnKey: () => false,
    store: createProviderStore({ now: () => 0 }),
    policy: openPolicy,
    ...overrides,
  };
  return {
    ...deps,
    ask(message) {
      const reply = answer(deps, sender.id, unframe(encodeMessage(message)));
      return reply === undefined ? undefined : decodeMessage(unframe(reply));
    },
  };
}

const idsOf = (peers: readonly Uint8Array[]): string[] =>
  peers.map((peer) => binaryString(decodePeer(peer).id));
const isInvalid = (error: unknown): boolean => hasCode(error, "SWARM_MESSAGE_INVALID");

describe("the answer to ADD_PROVIDER", () => {
  const addresses = [Uint8Array.of(4, 10, 0, 0, 1, 6, 0, 80)];
  const add = (
    node: ReturnType<typeof open>,
    providers: readonly Uint8Array[],
    of: Uint8Array = key,
  ): string[] => {
    assert.equal(node.ask({ type: MessageType.ADD_PROVIDER, key: of, providerPeers: providers }), undefined);
    return node.store.find(binaryString(of)).map(({ id }) => id);
  };

  it("is none; the record of the sender is kept", () => {
    assert.deepEqual(add(open(), [sender.info]), [sender.id]);
  });

  it("is none; a record of somebody else is not kept", () => {
    assert.deepEqual(add(open(), [contactNumber(2).info, sender.info]), [sender.id]);
    assert.deepEqual(add(open(), [contactNumber(2).info]), []);
  });

  it("is none; a record without an address that others can use is not kept", () => {
    const id = binaryBytes(sender.id);
    for (const useless of [
      [],
      [Uint8Array.of(4, 127, 0, 0, 1, 6, 0, 80)],
      [Uint8Array.of(4, 0, 0, 0, 0, 6, 0, 80)],
      [Uint8Array.of(4, 169, 254, 1, 1, 6, 0, 80)],
      [Uint8Array.of(0x36, 1, 97)],
    ]) {
      assert.deepEqual(add(open(), [encodePeer({ id, addresses: useless })]), []);
    }
  });

  it("is none; only the useful addresses are kept, and not too many", () => {
    const node = open();
    const many = Array.from({ length: 30 }, (_, i) => Uint8Array.of(4, 10, 0, 1, i, 6, 0, 80));
    add(node, [
      encodePeer({
        id: binaryBytes(sender.id),
        addresses: [Uint8Array.of(4, 127, 0, 0, 1, 6, 0, 80), ...addresses, ...many],
      }),
    ]);
    const kept = decodePeer(node.store.find(binaryString(key))[0]?.info ?? new Uint8Array(0)).addresses;
    assert.equal(kept.length, 8);
    assert.deepEqual(Uint8Array.from(kept[0] ?? []), addresses[0]);
  });

  it("is none; of a burst every record is judged as if it came alone", () => {
    const node = open({ last: { sender: "", encoded: new Uint8Array(0), info: undefined } });
    const other = encodePeer({
      id: binaryBytes(sender.id),
      addresses: [Uint8Array.of(4, 10, 0, 0, 2, 6, 0, 80)],
    });
    const stranger = contactNumber(2);
    const keys = Array.from({ length: 6 }, (_, i) => multihashOf(`burst ${i}`));
    const infos = [sender.info, sender.info, other, stranger.info, stranger.info, sender.info];
    const kept = keys.map((of, i) => add(node, [infos[i] as Uint8Array], of).length);
    assert.deepEqual(kept, [1, 1, 1, 0, 0, 1]);
    const addressesOf = (of: Uint8Array): number =>
      decodePeer(node.store.find(binaryString(of))[0]?.info ?? new Uint8Array(0)).addresses.length;
    assert.equal(addressesOf(keys[0] as Uint8Array), 1);
    // The same bytes from somebody else are not his.
    answer(
      node,
      stranger.id,
      unframe(encodeMessage({ type: MessageType.ADD_PROVIDER, key, providerPeers: [sender.info] })),
    );
    assert.deepEqual(node.store.find(binaryString(key)), []);
  });

  it("is the end of the stream for a key of 0 or more than 80 bytes", () => {
    for (const size of [0, 81, 1000]) {
      assert.throws(() => add(open(), [sender.info], new Uint8Array(size)), isInvalid);
      assert.throws(
        () => open().ask({ type: MessageType.GET_PROVIDERS, key: new Uint8Array(size) }),
        isInvalid,
      );
    }
    for (const size of [1, 80])
      assert.deepEqual(add(open(), [sender.info], new Uint8Array(size)), [sender.id]);
    assert.throws(() => open().ask({ type: MessageType.GET_PROVIDERS }), isInvalid);
  });
});

describe("the answer to GET_PROVIDERS", () => {
  it("names the providers, the node itself for its own keys, and nodes nearer to the key", () => {
    const node = open({
      contacts: () => [contactNumber(5), sender, contactNumber(6)],
      isOwnKey: (own) => own === binaryString(key),
    });
    node.store.add(binaryString(key), contactNumber(7).id, contactNumber(7).info);
    const reply = node.ask({ type: MessageType.GET_PROVIDERS, key });
    assert.deepEqual(idsOf(reply?.providerPeers ?? []), [self.id, contactNumber(7).id]);
    assert.deepEqual(
      idsOf(reply?.closerPeers ?? []).sort(),
      [contactNumber(5).id, contactNumber(6).id].sort(),
    );
    assert.deepEqual([...(reply?.key ?? [])], [...key]);
    assert.deepEqual(
      node.ask({ type: MessageType.GET_PROVIDERS, key: multihashOf("other") })?.providerPeers,
      [],
    );
  });

  it("stays short however many there are", () => {
    const node = open({ contacts: () => Array.from({ length: 500 }, (_, n) => contactNumber(n + 10)) });
    for (let n = 100; n < 300; n++)
      node.store.add(binaryString(key), contactNumber(n).id, contactNumber(n).info);
    const reply = node.ask({ type: MessageType.GET_PROVIDERS, key });
    assert.equal(reply?.providerPeers.length, 40);
    assert.equal(reply?.closerPeers.length, 20);
  });
});

describe("the answer to FIND_NODE", () => {
  it("names the node itself only to those who ask for it", () => {
    const node = open({ contacts: () => [contactNumber(5)] });
    assert.deepEqual(
      idsOf(node.ask({ type: MessageType.FIND_NODE, key: binaryBytes(self.id) })?.closerPeers ?? []),
      [self.id, contactNumber(5).id],
    );
    assert.deepEqual(idsOf(node.ask({ type: MessageType.FIND_NODE, key })?.closerPeers ?? []), [
      contactNumber(5).id,
    ]);
  });
});

describe("the answer to other messages", () => {
  it("echoes PING", () => {
    assert.equal(open().ask({ type: MessageType.PING })?.type, MessageType.PING);
  });

  it("has no value, whatever was put", () => {
    const node = open();
    assert.deepEqual(node.ask({ type: MessageType.PUT_VALUE, key })?.providerPeers, []);
    const reply = answer(node, sender.id, unframe(encodeMessage({ type: MessageType.GET_VALUE, key })));
    assert.equal(reply?.toString("hex"), `26` + `0801` + `1222${key.toString("hex")}`);
  });

  it("ends the stream for an unknown type", () => {
    assert.throws(() => open().ask({ type: 6 }), isInvalid);
  });

  it("is an answer or the end of the stream, whatever the bytes, and stores nothing of others", () => {
    const node = open();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), (frame) => {
        try {
          answer(node, sender.id, frame);
        } catch (error) {
          assert.ok(isInvalid(error));
        }
      }),
      { numRuns: 2000 },
    );
    assert.equal(node.store.recordCount, 0);
  });
});
