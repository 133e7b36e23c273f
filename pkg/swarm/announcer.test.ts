// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createLogger } from "#log";
import { eventually } from "#routing/testing";
import { type Announcer, type AnnouncerOptions, createAnnouncer } from "./announcer.ts";
import { type Contact, closest, contactOf } from "./contact.ts";
import { binaryString, kademliaIdOf, multihashOf } from "./key.ts";
import type { ChannelPool } from "./protocol/channel.ts";
import { createFrameReader } from "./protocol/frame.ts";
import { decodeMessage, MessageType } from "./protocol/message.ts";
import { installVirtualClock, seededRandom } from "./testing/virtual-clock.ts";
import { contactNumber } from "./testing/virtual-swarm.ts";

interface Rig extends Disposable {
  readonly announcer: Announcer;
  readonly contacts: Contact[];
  /** Keys in the order in which each node got them. */
  readonly received: Map<string, string[]>;
  readonly dedicated: string[];
  readonly silent: string[];
  readonly log: string[];
  /** What a node does with a request before it answers. */
  behave: (contact: Contact) => Promise<void>;
  self: Contact;
}

function openRig(contacts: Contact[], options: AnnouncerOptions = {}): Rig {
  const received = new Map<string, string[]>();
  const dedicated: string[] = [];
  const silent: string[] = [];
  const log: string[] = [];

  async function request(contact: Contact, frames: Uint8Array): Promise<Uint8Array> {
    await rig.behave(contact);
    const reader = createFrameReader();
    reader.push(frames);
    const messages = [];
    for (let frame = reader.next(); frame !== undefined; frame = reader.next())
      messages.push(decodeMessage(frame));
    assert.equal(messages.pop()?.type, MessageType.PING, "a request ends with what is answered");
    const keys = received.get(contact.id) ?? [];
    for (const { type, key, providerPeers } of messages) {
      assert.equal(type, MessageType.ADD_PROVIDER);
      assert.deepEqual(
        providerPeers.map((peer) => Buffer.from(peer)),
        [Buffer.from(rig.self.info)],
      );
      keys.push(binaryString(key ?? new Uint8Array(0)));
    }
    received.set(contact.id, keys);
    return new Uint8Array(0);
  }

  const channels: ChannelPool = {
    openChannels: 0,
    request,
    dedicated(contact) {
      dedicated.push(contact.id);
      return { request: (frames) => request(contact, frames), [Symbol.dispose]() {} };
    },
    [Symbol.dispose]() {},
  };
  const rig = { behave: async () => {}, self: contactNumber(0) } as Pick<Rig, "behave" | "self">;
  const announcer = createAnnouncer(
    {
      logger: createLogger({ level: "WARN", sink: { write: (line) => void log.push(JSON.parse(line).msg) } }),
      channels,
      contacts: () => contacts,
      self: () => rig.self,
      now: () => performance.now(),
      random: Math.random,
      onSilent: (contact) => void silent.push(contact.id),
    },
    { collectMs: 1, ...options },
  );
  return Object.assign(rig, {
    announcer,
    contacts,
    received,
    dedicated,
    silent,
    log,
    [Symbol.dispose]: () => announcer[Symbol.dispose](),
  });
}

const hash = (key: string): string => binaryString(multihashOf(key));
const numbers = (from: number, count: number): Contact[] =>
  Array.from({ length: count }, (_, i) => contactNumber(from + i));
const sentTo = (rig: Rig, contact: Contact | undefined): string[] =>
  rig.received.get(contact?.id ?? "") ?? [];
const sentInAll = (rig: Rig): number => [...rig.received.values()].flat().length;

describe("an announcer", () => {
  it("tells every node of a small swarm, each key once however often it is added", async () => {
    using rig = openRig(numbers(1, 3));
    rig.announcer.add(["a", "b", "a"]);
    rig.announcer.add(["b"]);
    await eventually(
      () => sentInAll(rig),
      (count) => count === 6,
    );
    rig.announcer.add(["a"]);
    rig.announcer.add(["c"]);
    await eventually(
      () => sentInAll(rig),
      (count) => count >= 9,
    );
    for (const contact of rig.contacts)
      assert.deepEqual(sentTo(rig, contact).sort(), ["a", "b", "c"].map(hash).sort());
    assert.equal(rig.announcer.keyCount, 3);
    assert.ok(rig.announcer.has(hash("a")) && !rig.announcer.has(hash("d")));
  });

  it("tells the twenty nearest nodes of a large swarm", async () => {
    using rig = openRig(numbers(1, 100));
    const keys = Array.from({ length: 50 }, (_, i) => `key ${i}`);
    rig.announcer.add(keys);
    await eventually(
      () => sentInAll(rig),
      (count) => count === 50 * 20,
    );
    for (const key of keys) {
      const nearest = closest(rig.contacts, kademliaIdOf(multihashOf(key)), 20).map(({ id }) => id);
      const told = [...rig.received].filter(([, received]) => received.includes(hash(key))).map(([id]) => id);
      assert.deepEqual(told.sort(), nearest.sort());
    }
  });

  it("uses a stream of its own for many keys and the common channel for a few", async () => {
    using rig = openRig(numbers(1, 1));
    rig.announcer.add(["a", "b"]);
    await eventually(
      () => sentInAll(rig),
      (count) => count === 2,
    );
    assert.deepEqual(rig.dedicated, []);
    rig.announcer.add(Array.from({ length: 1000 }, (_, i) => `key ${i}`));
    await eventually(
      () => sentInAll(rig),
      (count) => count === 1002,
    );
    assert.equal(rig.dedicated.length, 1);
    assert.equal(new Set(sentTo(rig, rig.contacts[0])).size, 1002);
  });

  it("tells a node that joins what it is near to, and nobody else again", async () => {
    using rig = openRig(numbers(1, 30));
    const keys = Array.from({ length: 40 }, (_, i) => `key ${i}`);
    rig.announcer.add(keys);
    await eventually(
      () => sentInAll(rig),
      (count) => count === 40 * 20,
    );
    const late = contactNumber(99);
    rig.contacts.push(late);
    rig.announcer.joined(late);
    const expected = keys
      .filter((key) => closest(rig.contacts, kademliaIdOf(multihashOf(key)), 20).includes(late))
      .map(hash);
    assert.ok(expected.length > 0 && expected.length < 40);
    await eventually(
      () => sentTo(rig, late).length,
      (count) => count === expected.length,
    );
    assert.deepEqual(sentTo(rig, late).sort(), expected.sort());
    assert.equal(sentInAll(rig), 40 * 20 + expected.length);
  });

  it("gives the share of nodes that are gone to the next nearest", async () => {
    using rig = openRig(numbers(1, 60));
    const keys = Array.from({ length: 40 }, (_, i) => `key ${i}`);
    rig.announcer.add(keys);
    await eventually(
      () => sentInAll(rig),
      (count) => count === 40 * 20,
    );
    const gone = rig.contacts.splice(10, 5);
    for (const contact of gone) rig.announcer.left(contact);
    const lostRecords = gone.reduce((sum, contact) => sum + sentTo(rig, contact).length, 0);
    assert.ok(lostRecords > 0);
    await eventually(
      () => sentInAll(rig),
      (count) => count >= 40 * 20 + lostRecords,
    );
    assert.equal(sentInAll(rig), 40 * 20 + lostRecords);
    for (const key of keys)
      for (const { id } of closest(rig.contacts, kademliaIdOf(multihashOf(key)), 20))
        assert.ok(rig.received.get(id)?.includes(hash(key)));
  });

  it("does nothing for a node that was gone for a moment", async () => {
    using rig = openRig(numbers(1, 30));
    rig.announcer.add(["k"]);
    await eventually(
      () => sentInAll(rig),
      (count) => count === 20,
    );
    const [gone, away] = rig.contacts.filter((contact) => sentTo(rig, contact).length > 0) as [
      Contact,
      Contact,
    ];
    for (const contact of [gone, away]) rig.announcer.left(contact);
    rig.contacts.splice(rig.contacts.indexOf(gone), 1);
    await eventually(
      () => sentInAll(rig),
      (count) => count >= 21,
    );
    rig.announcer.add(["later"]);
    await eventually(
      () => sentInAll(rig),
      (count) => count >= 41,
    );
    assert.equal(sentInAll(rig), 41);
  });

  it("keeps keys while it is isolated, and tells them to the first node that comes", async () => {
    using rig = openRig([]);
    rig.announcer.add(["a", "b"]);
    await eventually(
      () => rig.announcer.waitingCount,
      (count) => count === 0,
    );
    rig.contacts.push(contactNumber(1));
    rig.announcer.joined(contactNumber(1));
    await eventually(
      () => sentTo(rig, contactNumber(1)).length,
      (count) => count === 2,
    );
  });

  it("waits while the node has no address to announce", async () => {
    using rig = openRig(numbers(1, 1), { intervalMs: 20 });
    const reachable = rig.self;
    rig.self = contactOf(reachable.peerId);
    rig.announcer.add(["a"]);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(rig.announcer.waitingCount, 1);
    assert.equal(sentInAll(rig), 0);
    rig.self = reachable;
    await eventually(
      () => sentInAll(rig),
      (count) => count > 0,
    );
  });

  it("sends a new key although one node is slow to take the others", async () => {
    using rig = openRig(numbers(1, 4));
    const slow = contactNumber(1).id;
    const never = new Promise<void>(() => {});
    rig.behave = (contact) => (contact.id === slow ? never : Promise.resolve());
    rig.announcer.add(["a"]);
    await eventually(
      () => sentInAll(rig),
      (count) => count === 3,
    );
    rig.announcer.add(["b"]);
    await eventually(
      () => sentInAll(rig),
      (count) => count === 6,
    );
  });

  it("tells of a node that does not take its keys, and tries again later", async () => {
    using rig = openRig(numbers(1, 2), { intervalMs: 100_000 });
    using quick = openRig(numbers(1, 1), { intervalMs: 40 });
    for (const each of [rig, quick]) each.behave = async () => Promise.reject(new Error("refused"));
    rig.announcer.add(["a"]);
    quick.announcer.add(["a"]);
    await eventually(
      () => rig.silent.length,
      (count) => count === 2,
    );
    await eventually(
      () => quick.silent.length,
      (count) => count > 0,
    );
    quick.behave = async () => {};
    await eventually(
      () => sentInAll(quick),
      (count) => count > 0,
    );
  });

  it("renews each key in time, until it is withdrawn", async () => {
    using rig = openRig(numbers(1, 1), { intervalMs: 60 });
    rig.announcer.add(["kept", "dropped"]);
    const times = (key: string): number =>
      sentTo(rig, rig.contacts[0]).filter((each) => each === hash(key)).length;
    await eventually(
      () => times("kept") + times("dropped"),
      (count) => count >= 6,
    );
    rig.announcer.remove(["dropped", "unknown"]);
    assert.equal(rig.announcer.has(hash("dropped")), false);
    const before = times("dropped");
    const renewed = times("kept");
    await eventually(
      () => times("kept"),
      (count) => count > renewed + 3,
    );
    assert.ok(times("dropped") <= before + 1, "at most the one that was on its way");
  });

  it("spreads the renewal of keys that came in one burst over a third of the interval", async () => {
    using clock = installVirtualClock(seededRandom(1));
    using rig = openRig(numbers(1, 1));
    rig.announcer.add(Array.from({ length: 300 }, (_, i) => `key ${i}`));
    await clock.advance(1_000);
    assert.equal(sentInAll(rig), 300);
    await clock.advance(9.9 * 60_000);
    assert.equal(sentInAll(rig), 300);
    for (let minute = 10; minute < 15; minute++) {
      const before = sentInAll(rig);
      await clock.advance(61_000);
      const renewed = sentInAll(rig) - before;
      assert.ok(renewed > 30 && renewed < 100, `${renewed} in minute ${minute}`);
    }
    assert.equal(sentInAll(rig), 600);
  });

  it("holds a bounded number of keys and says so", () => {
    using rig = openRig([], { maxKeys: 2 });
    rig.announcer.add(["a", "b", "c", "d"]);
    assert.equal(rig.announcer.keyCount, 2);
    assert.deepEqual(rig.log, ["too many keys, not announcing further ones"]);
  });
});
