// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Contact, closest, createContact } from "./contact.ts";
import { binaryBytes, binaryString, kademliaIdOf, multihashOf } from "./key.ts";
import { encodeMessage, encodePeer, MessageType } from "./protocol/message.ts";
import { explore, type SearchOptions, search } from "./search.ts";
import { installVirtualClock, seededRandom } from "./testing/virtual-clock.ts";
import {
  contactNumber,
  createVirtualSwarm,
  openPolicy,
  unframe,
  type VirtualSwarm,
} from "./testing/virtual-swarm.ts";

const forever = new AbortController().signal;

interface Outcome {
  readonly found: string[];
  readonly requests: number;
  readonly silent: number;
}

async function find(
  swarm: VirtualSwarm,
  askerNumber: number,
  key: string,
  settings: { delay?: (node: Contact) => number | "dead"; options?: SearchOptions } = {},
): Promise<Outcome> {
  const asker = swarm.nodes[askerNumber];
  assert.ok(asker);
  const client = swarm.client(asker.contact, settings.delay);
  const found: string[] = [];
  let silent = 0;
  await search(
    {
      client,
      policy: openPolicy,
      contacts: () => asker.table,
      selfId: asker.contact.id,
      onSilent: () => void silent++,
    },
    {
      type: MessageType.GET_PROVIDERS,
      key: multihashOf(key),
      onProvider: (provider) => void found.push(provider.id),
      signal: forever,
    },
    settings.options,
  );
  return { found, requests: client.requests, silent };
}

describe("a search", () => {
  const swarm = createVirtualSwarm(400);

  it("finds every key of a large swarm, from anywhere, with a handful of questions", async () => {
    let requests = 0;
    for (let i = 0; i < 60; i++) {
      const provider = contactNumber((i * 37) % 400);
      swarm.provide(`key ${i}`, provider);
      const outcome = await find(swarm, (i * 61 + 1) % 400, `key ${i}`);
      assert.deepEqual(outcome.found, [provider.id]);
      requests += outcome.requests;
    }
    assert.ok(requests / 60 < 20, `${requests / 60} questions for a key`);
  });

  it("finds nothing where nothing is, and ends", async () => {
    const outcome = await find(swarm, 3, "nobody has this");
    assert.deepEqual(outcome.found, []);
    assert.ok(outcome.requests <= 40);
  });

  it("finds keys although every third node is dead, and tells which were silent", async () => {
    const isDead = (node: Contact): number | "dead" => (node.low % 3 === 0 ? "dead" : 0);
    let silent = 0;
    for (let i = 0; i < 20; i++) {
      const provider = contactNumber(i);
      swarm.provide(`lively ${i}`, provider);
      const outcome = await find(swarm, 200 + i, `lively ${i}`, { delay: isDead });
      assert.deepEqual(outcome.found, [provider.id]);
      silent += outcome.silent;
    }
    assert.ok(silent > 0);
  });

  it("goes around slow nodes instead of waiting for them", async () => {
    const slow = new Set(swarm.nodes.filter((_, n) => n % 4 === 0).map(({ contact }) => contact.id));
    swarm.provide("around", contactNumber(1));
    const outcome = await find(swarm, 9, "around", {
      delay: (node) => (slow.has(node.id) ? Infinity : 0),
      options: { slowAfterMs: 5 },
    });
    assert.deepEqual(outcome.found, [contactNumber(1).id]);
  });

  it("takes the answer of a slow node when there is no other", async () => {
    const small = createVirtualSwarm(2);
    small.provide("slow but sure", contactNumber(1));
    const outcome = await find(small, 0, "slow but sure", { delay: () => 50, options: { slowAfterMs: 1 } });
    assert.deepEqual(outcome.found, [contactNumber(1).id]);
  });

  it("asks half of the nodes that may have a record where there are too many nodes to know all, and few elsewhere", async () => {
    const findBehind = async (all: VirtualSwarm, nearer: number): Promise<Outcome> => {
      const key = `behind ${nearer}`;
      const multihash = multihashOf(key);
      const contacts = all.nodes.map(({ contact }) => contact);
      const holders = closest(contacts, kademliaIdOf(multihash), 20).slice(nearer);
      for (const { contact, store } of all.nodes)
        if (holders.includes(contact))
          store.add(binaryString(multihash), contactNumber(9).id, contactNumber(9).info);
      return find(all, 5, key);
    };
    assert.deepEqual((await findBehind(swarm, 8)).found, [contactNumber(9).id]);
    const small = await findBehind(createVirtualSwarm(60), 14);
    assert.deepEqual(small.found, []);
    assert.ok(small.requests < 12, `${small.requests} questions`);
  });

  it("ends at once without any node, or with dead ones only", async () => {
    assert.deepEqual(await find(createVirtualSwarm(1), 0, "alone"), { found: [], requests: 0, silent: 0 });
    const outcome = await find(createVirtualSwarm(5), 0, "dead", { delay: () => "dead" });
    assert.deepEqual(outcome, { found: [], requests: 4, silent: 4 });
  });

  it("ends when its signal aborts, in the middle or before", async () => {
    const [asker] = swarm.nodes;
    assert.ok(asker);
    for (const abortFirst of [true, false]) {
      const stop = new AbortController();
      if (abortFirst) stop.abort();
      let asked = 0;
      const client = {
        request: (): Promise<Uint8Array> => {
          asked++;
          queueMicrotask(() => stop.abort());
          return new Promise(() => {});
        },
      };
      await search(
        {
          client,
          policy: openPolicy,
          contacts: () => asker.table,
          selfId: asker.contact.id,
          onSilent: () => assert.fail("nobody was silent"),
        },
        { type: MessageType.GET_PROVIDERS, key: multihashOf("k"), signal: stop.signal },
      );
      assert.equal(asked, abortFirst ? 0 : 1);
    }
  });

  it("asks nobody else when the first answer is enough", async () => {
    const [asker] = swarm.nodes;
    assert.ok(asker);
    const provider = contactNumber(7);
    const reply = encodeMessage({ type: MessageType.GET_PROVIDERS, providerPeers: [provider.info] });
    const stop = new AbortController();
    let asked = 0;
    await search(
      {
        client: {
          request: async () => {
            asked++;
            return unframe(reply);
          },
        },
        policy: openPolicy,
        contacts: () => asker.table,
        selfId: asker.contact.id,
        onSilent: () => assert.fail("nobody was silent"),
      },
      {
        type: MessageType.GET_PROVIDERS,
        key: multihashOf("k"),
        onProvider: () => stop.abort(),
        signal: stop.signal,
      },
    );
    assert.equal(asked, 1);
  });

  /** One node whose every answer is `reply`; whoever it names answers the same. */
  async function findAmong(
    reply: (asked: number) => Uint8Array,
    maxRequests = 40,
  ): Promise<Outcome & { readonly providers: Contact[] }> {
    const providers: Contact[] = [];
    let requests = 0;
    let silent = 0;
    await search(
      {
        client: { request: async () => unframe(reply(++requests)) },
        policy: openPolicy,
        contacts: () => [contactNumber(1)],
        selfId: contactNumber(0).id,
        onSilent: () => void silent++,
      },
      {
        type: MessageType.GET_PROVIDERS,
        key: multihashOf("k"),
        onProvider: (provider) => void providers.push(provider),
        signal: forever,
      },
      { maxRequests },
    );
    return { found: providers.map(({ id }) => id), requests, silent, providers };
  }

  it("does not follow made-up nodes for ever", async () => {
    let n = 1000;
    const outcome = await findAmong(() =>
      encodeMessage({
        type: MessageType.GET_PROVIDERS,
        closerPeers: Array.from({ length: 20 }, () => contactNumber(n++).info),
      }),
    );
    assert.ok(outcome.requests <= 40);
  });

  it("passes over malformed answers and malformed peers", async () => {
    const garbage = encodeMessage({
      type: MessageType.GET_PROVIDERS,
      providerPeers: [Uint8Array.of(1, 2, 3)],
    });
    assert.deepEqual(await findAmong(() => garbage), { found: [], requests: 1, silent: 1, providers: [] });
    const noPeerId = encodeMessage({
      type: MessageType.GET_PROVIDERS,
      providerPeers: [encodePeer({ id: Uint8Array.of(7, 7, 7), addresses: [] })],
    });
    assert.deepEqual(await findAmong(() => noPeerId), { found: [], requests: 1, silent: 1, providers: [] });
  });

  it("passes over a peer with two ids, of which others would see another one", async () => {
    const twice = Buffer.concat([contactNumber(5).info, contactNumber(6).info]);
    const reply = encodeMessage({
      type: MessageType.GET_PROVIDERS,
      providerPeers: [twice, contactNumber(7).info],
    });
    assert.deepEqual((await findAmong(() => reply)).found, [contactNumber(7).id]);
  });

  it("takes a node as it was named before, unless it is named in another way now", async () => {
    const [named, moved] = [contactNumber(5), contactNumber(6)];
    const now = createContact(binaryBytes(moved.id), [{ ip: "10.7.7.7", port: 5001 }]);
    const reply = encodeMessage({ type: MessageType.FIND_NODE, closerPeers: [named.info, now.info] });
    const learned: Contact[] = [];
    await search(
      {
        client: { request: async () => unframe(reply) },
        policy: openPolicy,
        contacts: () => [contactNumber(1)],
        named: (id) => [named, moved].find((each) => each.id === id),
        selfId: contactNumber(0).id,
        onLearned: (contact) => void learned.push(contact),
        onSilent: () => {},
      },
      { type: MessageType.FIND_NODE, key: multihashOf("anything"), signal: forever },
    );
    assert.equal(learned[0], named);
    assert.deepEqual(learned[1]?.endpoints, now.endpoints);
  });

  it("never names the searching node, and drops single addresses that cannot be used", async () => {
    const other = contactNumber(5);
    const multihash = Buffer.from(other.id, "latin1");
    const ip = (...bytes: number[]): Uint8Array => Uint8Array.of(4, ...bytes, 6, 0, 80);
    const mixed = encodePeer({
      id: multihash,
      addresses: [ip(127, 0, 0, 1), Uint8Array.of(0x36, 1, 97), ip(10, 0, 0, 5), ip(169, 254, 0, 1)],
    });
    const reply = encodeMessage({
      type: MessageType.GET_PROVIDERS,
      providerPeers: [contactNumber(0).info, mixed, mixed],
    });
    const { providers } = await findAmong(() => reply);
    assert.deepEqual(
      providers.map(({ id, endpoints }) => ({ id, endpoints })),
      [{ id: binaryString(multihash), endpoints: [{ ip: "10.0.0.5", port: 80 }] }],
    );
  });
});

describe("an exploration", () => {
  const swarm = createVirtualSwarm(1_000);

  async function look(settings: { maxParts?: number }): Promise<{ known: number; requests: number }> {
    const [asker] = swarm.nodes;
    assert.ok(asker);
    const client = swarm.client(asker.contact);
    const known = new Map(asker.table.map((contact) => [contact.id, contact]));
    await explore(
      {
        client,
        policy: openPolicy,
        contacts: () => known.values(),
        selfId: asker.contact.id,
        onLearned: (contact) => known.set(contact.id, contact),
        onSilent: () => assert.fail("nobody was silent"),
      },
      { self: asker.contact, random: seededRandom(1), signal: forever, ...settings },
    );
    return { known: known.size, requests: client.requests };
  }

  it("of all parts learns of nearly all nodes of a large swarm, with four questions about a part at most", async () => {
    const { known, requests } = await look({});
    assert.ok(known >= 950, `${known} of 999 known`);
    assert.ok(requests <= (128 + 256) * 4, `${requests} questions`);
  });

  it("of all parts learns within seconds who is left when half of a large swarm has become unreachable", async () => {
    using clock = installVirtualClock(seededRandom(1));
    const [asker] = swarm.nodes;
    assert.ok(asker);
    const client = swarm.client(asker.contact);
    const isLeft = ({ low }: Contact): boolean => low % 2 === 0;
    const known = new Map(asker.table.map((contact) => [contact.id, contact]));
    const silent = new Set<string>();
    let requests = 0;
    const stop = new AbortController();
    const exploring = explore(
      {
        client: {
          async request(contact, frames, options) {
            requests++;
            if (isLeft(contact)) return client.request(contact, frames, options);
            await new Promise<void>((resolve) => clock.after(2_000, resolve));
            throw new Error("dial timed out");
          },
        },
        policy: openPolicy,
        contacts: () => known.values(),
        isDistrusted: (id) => silent.has(id),
        selfId: asker.contact.id,
        onLearned: (contact) => known.set(contact.id, contact),
        onSilent({ id }) {
          known.delete(id);
          silent.add(id);
        },
      },
      { self: asker.contact, random: seededRandom(1), signal: stop.signal },
    );
    await clock.advance(20_000);
    stop.abort();
    await exploring;
    const left = swarm.nodes.filter(({ contact }) => isLeft(contact) && contact !== asker.contact).length;
    const learned = [...known.values()].filter(isLeft).length;
    assert.ok(learned >= 0.9 * left, `${learned} of ${left} known`);
    assert.ok(requests <= (128 + 256) * 6, `${requests} questions`);
  });

  it("of a choice of the parts costs the same in a swarm of any size", async () => {
    const { requests } = await look({ maxParts: 32 });
    assert.ok(requests > 0);
    assert.ok(requests <= 2 * 32 * 4, `${requests} questions`);
  });
});
