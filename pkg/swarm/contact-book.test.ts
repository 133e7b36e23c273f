// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { closest, distanceTo } from "./contact.ts";
import { createContactBook } from "./contact-book.ts";
import { kademliaIdOf } from "./key.ts";
import { contactNumber } from "./testing/virtual-swarm.ts";

describe("a contact book", () => {
  const [a, b, c] = [contactNumber(1), contactNumber(2), contactNumber(3)];
  const ids = (book: ReturnType<typeof createContactBook>): string[] =>
    [...book.contacts()].map(({ id }) => id);

  it("tells whether a node is new, and forgets it when nobody names it any more", () => {
    let now = 0;
    const book = createContactBook({ now: () => now }, { freshMs: 100 });
    assert.equal(book.add(a), true);
    now = 80;
    assert.equal(book.add(a), false);
    assert.equal(book.add(b), true);
    now = 180;
    assert.deepEqual(ids(book), [a.id, b.id]);
    now = 181;
    assert.deepEqual(ids(book), []);
    assert.equal(book.add(a), true);
  });

  it("does not believe in a node again soon that could not be reached", () => {
    let now = 0;
    const book = createContactBook({ now: () => now }, { distrustMs: 50 });
    book.add(a);
    book.remove(a.id);
    now = 49;
    assert.ok(book.isDistrusted(a.id) && !book.isDistrusted(b.id));
    assert.equal(book.add(a), false);
    assert.deepEqual(ids(book), []);
    now = 50;
    assert.equal(book.add(a), true);
  });

  it("waits twice as long after each failure, up to a limit, and begins anew with a node that was reached", () => {
    let now = 0;
    const book = createContactBook({ now: () => now }, { distrustMs: 10, distrustMaxMs: 40 });
    const wait = (): number => {
      book.remove(a.id);
      const since = now;
      while (book.isDistrusted(a.id)) now++;
      return now - since;
    };
    assert.deepEqual([wait(), wait(), wait(), wait()], [10, 20, 40, 40]);
    book.trust(a.id);
    assert.equal(wait(), 10);
  });

  it("counts a failure once that several have met", () => {
    let now = 0;
    const book = createContactBook({ now: () => now }, { distrustMs: 10 });
    for (let i = 0; i < 5; i++) book.remove(a.id);
    now = 10;
    assert.equal(book.isDistrusted(a.id), false);
  });

  it("believes in a node again at once that was reached after all", () => {
    const book = createContactBook({ now: () => 0 });
    book.remove(a.id);
    assert.equal(book.add(a), false);
    book.trust(a.id);
    assert.equal(book.add(a), true);
  });

  it("holds no more than its limit, whatever it is told", () => {
    const book = createContactBook({ now: () => 0 }, { maxContacts: 2 });
    for (const contact of [a, b, a, c]) book.add(contact);
    assert.deepEqual(ids(book), [a.id, c.id]);
    for (let n = 10; n < 40; n++) book.add(contactNumber(n));
    assert.equal(ids(book).length, 2);
  });
});

describe("the closest contacts", () => {
  it("are those that sorting all of them gives", () => {
    const contacts = Array.from({ length: 60 }, (_, n) => contactNumber(n));
    fc.assert(
      fc.property(fc.subarray(contacts), fc.nat(30), fc.string(), (some, count, key) => {
        const target = kademliaIdOf(Buffer.from(key));
        const distance = distanceTo(target);
        const sorted = [...some].sort((x, y) => distance(x) - distance(y)).slice(0, count);
        assert.deepEqual(
          closest(some, target, count).map(({ id }) => id),
          sorted.map(({ id }) => id),
        );
      }),
    );
  });
});
