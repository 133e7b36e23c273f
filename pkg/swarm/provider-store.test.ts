// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { createProviderStore, type ProviderStore } from "./provider-store.ts";

const info = Uint8Array.of(1);
const MINUTE_MS = 60_000;

function openStore(options: Parameters<typeof createProviderStore>[1] = {}): {
  store: ProviderStore;
  pass(ms: number): void;
} {
  let nowMs = 0;
  const store = createProviderStore({ now: () => nowMs }, options);
  return { store, pass: (ms) => void (nowMs += ms) };
}

const ids = (store: ProviderStore, key: string): string[] =>
  store
    .find(key)
    .map(({ id }) => id)
    .sort();

describe("a provider store", () => {
  it("names the peers of a key, each once, and nobody for another key", () => {
    const { store } = openStore();
    for (const peer of ["a", "b", "a", "c"]) assert.ok(store.add("k", peer, info));
    assert.deepEqual(ids(store, "k"), ["a", "b", "c"]);
    assert.deepEqual(ids(store, "other"), []);
    assert.equal(store.recordCount, 3);
    assert.equal(store.peerCount, 3);
  });

  it("ends a record after its time unless it was renewed, on reading and in a sweep", () => {
    const { store, pass } = openStore();
    store.add("k", "a", info);
    store.add("k", "b", info);
    pass(18 * MINUTE_MS);
    store.add("k", "b", info);
    pass(MINUTE_MS - 250);
    assert.deepEqual(ids(store, "k"), ["a", "b"]);
    pass(250);
    assert.deepEqual(ids(store, "k"), ["b"]);
    assert.equal(store.recordCount, 2, "still there until the sweep");
    store.sweep();
    assert.equal(store.recordCount, 1);
    assert.equal(store.peerCount, 1);
    pass(18 * MINUTE_MS);
    store.sweep();
    assert.equal(store.recordCount, 0);
    assert.equal(store.peerCount, 0);
  });

  it("ends records in time after weeks of running", () => {
    const { store, pass } = openStore();
    for (let day = 0; day < 20; day++) {
      store.add("k", "a", info);
      pass(18 * MINUTE_MS);
      assert.deepEqual(ids(store, "k"), ["a"]);
      pass(2 * MINUTE_MS);
      assert.deepEqual(ids(store, "k"), []);
      store.sweep();
      pass(24 * 60 * MINUTE_MS + 77);
    }
  });

  it("hides the records of a peer that cannot be reached, and shows them again", () => {
    const { store } = openStore();
    store.add("k", "a", info);
    store.setReachable("a", false);
    store.setReachable("stranger", false);
    assert.deepEqual(ids(store, "k"), []);
    store.setReachable("a", true);
    assert.deepEqual(ids(store, "k"), ["a"]);
    store.setReachable("a", false);
    store.add("k2", "a", info);
    assert.deepEqual(ids(store, "k"), ["a"], "it was here just now");
  });

  it("keeps the latest addresses of a peer, and its own copy of them", () => {
    const { store } = openStore();
    const mutable = Uint8Array.of(1, 2);
    store.add("k", "a", mutable);
    mutable[0] = 9;
    assert.deepEqual(store.find("k")[0]?.info, Uint8Array.of(1, 2));
    store.add("k", "a", Uint8Array.of(3));
    assert.deepEqual(store.find("k")[0]?.info, Uint8Array.of(3));
  });

  it("lets one peer fill it, and takes the surplus back when another comes", () => {
    const { store } = openStore({ maxRecords: 100 });
    for (let i = 0; i < 150; i++) store.add(`greedy ${i}`, "greedy", info);
    assert.equal(store.recordCount, 100);
    for (let i = 0; i < 60; i++) store.add(`late ${i}`, "late", info);
    assert.equal(store.recordCount, 100);
    assert.equal(Array.from({ length: 60 }, (_, i) => ids(store, `late ${i}`)).flat().length, 50);
    assert.equal(Array.from({ length: 150 }, (_, i) => ids(store, `greedy ${i}`)).flat().length, 50);
  });

  it("renews what it has when it is full", () => {
    const { store, pass } = openStore({ maxRecords: 2 });
    store.add("k1", "a", info);
    store.add("k2", "a", info);
    pass(18 * MINUTE_MS);
    assert.ok(store.add("k1", "a", info));
    assert.ok(!store.add("k3", "a", info));
    pass(2 * MINUTE_MS);
    assert.deepEqual(ids(store, "k1"), ["a"]);
  });

  it("knows a bounded number of peers, and has room again when some are gone", () => {
    const { store, pass } = openStore({ maxPeers: 3 });
    const added = ["a", "b", "c", "d"].map((peer) => store.add(`key of ${peer}`, peer, info));
    assert.deepEqual(added, [true, true, true, false]);
    pass(20 * MINUTE_MS);
    store.sweep();
    assert.ok(store.add("k", "d", info));
  });

  it("gives the places of peers that cannot be reached to others when all are taken", () => {
    const { store } = openStore({ maxPeers: 3 });
    for (const peer of ["a", "b", "c"]) store.add("k", peer, info);
    store.setReachable("b", false);
    assert.ok(store.add("k", "d", info));
    assert.deepEqual(ids(store, "k").sort(), ["a", "c", "d"]);
    assert.ok(!store.add("k", "e", info));
    assert.ok(!store.hasPeer("b"));
  });

  it("agrees with a plain table under any sequence of events, within its bounds", () => {
    const event = fc.oneof(
      {
        weight: 8,
        arbitrary: fc.record({
          kind: fc.constant("add" as const),
          key: fc.integer({ max: 12, min: 0 }),
          peer: fc.integer({ max: 6, min: 0 }),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constant("pass" as const),
          ms: fc.integer({ min: 0, max: 12 * MINUTE_MS }),
        }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("sweep" as const) }) },
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 200 }), (events) => {
        const { store, pass } = openStore();
        const table = new Map<string, number>();
        let nowMs = 0;
        for (const step of events) {
          if (step.kind === "pass") {
            const ms = Math.floor(step.ms / 250) * 250;
            nowMs += ms;
            pass(ms);
          } else if (step.kind === "sweep") store.sweep();
          else {
            assert.ok(store.add(`k${step.key}`, `p${step.peer}`, info));
            table.set(`k${step.key} p${step.peer}`, nowMs);
          }
        }
        for (let key = 0; key <= 12; key++) {
          const expected = [0, 1, 2, 3, 4, 5, 6]
            .map((peer) => `p${peer}`)
            .filter((peer) => nowMs - (table.get(`k${key} ${peer}`) ?? -Infinity) < 19 * MINUTE_MS);
          assert.deepEqual(ids(store, `k${key}`), expected);
        }
      }),
    );
  });

  it("never exceeds its bounds, and gives every peer its share", () => {
    const adds = fc.array(fc.tuple(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: 9 })), {
      maxLength: 400,
    });
    fc.assert(
      fc.property(
        adds,
        fc.integer({ min: 1, max: 60 }),
        fc.integer({ min: 1, max: 8 }),
        (steps, maxRecords, maxPeers) => {
          const { store } = openStore({ maxRecords, maxPeers });
          const wanted = new Map<string, Set<string>>();
          for (const [key, peer] of steps) {
            const stored = store.add(`k${key}`, `p${peer}`, info);
            if (stored) wanted.set(`p${peer}`, (wanted.get(`p${peer}`) ?? new Set()).add(`k${key}`));
            assert.ok(store.recordCount <= maxRecords && store.peerCount <= maxPeers);
            if (stored) assert.ok(ids(store, `k${key}`).includes(`p${peer}`), "what was taken is there");
          }
          const counted = Array.from({ length: 201 }, (_, key) => store.find(`k${key}`)).flat();
          assert.equal(counted.length, store.recordCount, "the count is right");
          const share = Math.floor(maxRecords / Math.max(store.peerCount, 1));
          for (const [peer, keys] of wanted) {
            const held = counted.filter(({ id }) => id === peer).length;
            if (store.hasPeer(peer))
              assert.ok(
                held >= Math.min(share, keys.size),
                `${peer} has ${held} of ${keys.size}, share ${share}`,
              );
          }
        },
      ),
    );
  });
});
