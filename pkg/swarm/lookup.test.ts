// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { silentLogger } from "#log";
import type { Peer } from "#routing";
import { eventually } from "#routing/testing";
import type { Contact } from "./contact.ts";
import { binaryString, multihashOf } from "./key.ts";
import { createLookups, type LookupOptions, type Lookups } from "./lookup.ts";
import { encodeMessage, MessageType } from "./protocol/message.ts";
import { createProviderStore, type ProviderStore } from "./provider-store.ts";
import { contactNumber, openPolicy, unframe } from "./testing/virtual-swarm.ts";

interface Rig {
  readonly lookups: Lookups;
  readonly store: ProviderStore;
  /** Requests that wait for an answer. */
  readonly asked: { answer(providers: readonly Contact[]): void; readonly signal: AbortSignal }[];
  readonly durations: number[];
}

/** Look-ups of a node that knows `neighbours` others, whose answers the test gives. */
function openRig(neighbours: number, options: LookupOptions = {}): Rig {
  const store = createProviderStore({ now: () => 0 });
  const asked: Rig["asked"] = [];
  const durations: number[] = [];
  const lookups = createLookups(
    {
      logger: silentLogger,
      store,
      policy: openPolicy,
      now: () => performance.now(),
      resolved: (seconds) => void durations.push(seconds),
      contacts: () => Array.from({ length: neighbours }, (_, n) => contactNumber(n + 100)),
      selfId: contactNumber(0).id,
      onSilent: () => {},
      client: {
        request: (_contact, _frames, { signal }) =>
          new Promise((resolve, reject) => {
            signal.addEventListener("abort", () => reject(signal.reason as Error));
            asked.push({
              signal,
              answer: (providers) =>
                resolve(
                  unframe(
                    encodeMessage({
                      type: MessageType.GET_PROVIDERS,
                      providerPeers: providers.map(({ info }) => info),
                    }),
                  ),
                ),
            });
          }),
      },
    },
    { slowAfterMs: 60_000, ...options },
  );
  return { lookups, store, asked, durations };
}

const never = new AbortController().signal;
const idOf = (contact: Contact): string => contact.peerId.toString();

async function collect(peers: AsyncIterable<Peer>): Promise<string[]> {
  const found: string[] = [];
  for await (const peer of peers) found.push(peer.id);
  return found;
}

describe("look-ups", () => {
  it("give a provider before the search has ended", async () => {
    const { lookups, asked } = openRig(2);
    const peers = lookups.lookup("k", { count: 3, signal: never })[Symbol.asyncIterator]();
    const first = peers.next();
    await eventually(
      () => asked.length,
      (count) => count === 2,
    );
    asked[0]?.answer([contactNumber(7)]);
    assert.equal(((await first).value as Peer).id, idOf(contactNumber(7)));
    asked[1]?.answer([contactNumber(7), contactNumber(8)]);
    assert.equal(((await peers.next()).value as Peer).id, idOf(contactNumber(8)));
    assert.equal((await peers.next()).done, true);
  });

  it("share one search among callers, and the end of one ends nothing for the others", async () => {
    const { lookups, asked } = openRig(1);
    const impatient = new AbortController();
    const given: string[][] = [];
    const first = collect(lookups.lookup("k", { count: 3, signal: impatient.signal })).then((ids) =>
      given.push(ids),
    );
    const second = collect(lookups.lookup("k", { count: 3, signal: never }));
    await eventually(
      () => asked.length,
      (count) => count === 1,
    );
    assert.equal(lookups.running, 1);
    impatient.abort();
    await first;
    assert.deepEqual(given, [[]]);
    assert.equal(asked[0]?.signal.aborted, false);
    asked[0]?.answer([contactNumber(7)]);
    assert.deepEqual(await second, [idOf(contactNumber(7))]);
  });

  it("stop a search that nobody waits for any more", async () => {
    const { lookups, asked } = openRig(1);
    const stop = new AbortController();
    const only = collect(lookups.lookup("k", { count: 3, signal: stop.signal }));
    await eventually(
      () => asked.length,
      (count) => count === 1,
    );
    stop.abort();
    assert.deepEqual(await only, []);
    await eventually(
      () => lookups.running,
      (running) => running === 0,
    );
    assert.equal(asked[0]?.signal.aborted, true);
  });

  it("do not join a search that may have missed a new key", async () => {
    const { lookups, asked } = openRig(1, { joinWithinMs: 0 });
    const old = collect(lookups.lookup("k", { count: 1, signal: never }));
    await eventually(
      () => asked.length,
      (count) => count === 1,
    );
    const young = collect(lookups.lookup("k", { count: 1, signal: never }));
    await eventually(
      () => asked.length,
      (count) => count === 2,
    );
    asked[1]?.answer([contactNumber(7)]);
    assert.deepEqual(await young, [idOf(contactNumber(7))]);
    asked[0]?.answer([]);
    assert.deepEqual(await old, []);
  });

  it("end with the count, without asking anyone when the own store suffices", async () => {
    const { lookups, store, asked } = openRig(1);
    for (const n of [1, 2, 3])
      store.add(binaryString(multihashOf("k")), contactNumber(n).id, contactNumber(n).info);
    assert.equal((await collect(lookups.lookup("k", { count: 2, signal: never }))).length, 2);
    assert.equal(asked.length, 0);
    assert.deepEqual(await collect(lookups.lookup("k", { count: 0, signal: never })), []);
  });

  it("do not give the same peer from the store and from the search", async () => {
    const { lookups, store, asked, durations } = openRig(1);
    store.add(binaryString(multihashOf("k")), contactNumber(1).id, contactNumber(1).info);
    const all = collect(lookups.lookup("k", { count: 9, signal: never }));
    await eventually(
      () => asked.length,
      (count) => count === 1,
    );
    asked[0]?.answer([contactNumber(1), contactNumber(2)]);
    assert.deepEqual(await all, [idOf(contactNumber(1)), idOf(contactNumber(2))]);
    assert.equal(durations.length, 3, "every provider that was named is measured");
  });

  it("ask nobody when too many searches run", async () => {
    const { lookups, asked } = openRig(1, { maxSearches: 1 });
    const first = collect(lookups.lookup("a", { count: 1, signal: never }));
    assert.deepEqual(await collect(lookups.lookup("b", { count: 1, signal: never })), []);
    await eventually(
      () => asked.length,
      (count) => count === 1,
    );
    asked[0]?.answer([]);
    await first;
    const next = collect(lookups.lookup("b", { count: 1, signal: never }));
    await eventually(
      () => asked.length,
      (count) => count === 2,
    );
    asked[1]?.answer([]);
    await next;
  });

  it("end when the consumer stops early", async () => {
    const { lookups, asked } = openRig(2);
    const found = (async () => {
      for await (const peer of lookups.lookup("k", { count: 5, signal: never })) return peer.id;
      return undefined;
    })();
    await eventually(
      () => asked.length,
      (count) => count === 2,
    );
    asked[0]?.answer([contactNumber(7), contactNumber(8)]);
    assert.equal(await found, idOf(contactNumber(7)));
    await eventually(
      () => lookups.running,
      (running) => running === 0,
    );
  });

  it("end with the time for a search", async () => {
    const { lookups } = openRig(1, { searchTimeoutMs: 1 });
    assert.deepEqual(await collect(lookups.lookup("k", { count: 1, signal: never })), []);
  });
});
