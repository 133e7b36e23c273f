// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type Contact, closest, createContact } from "./contact.ts";
import { createContactIndex, unionOf } from "./contact-index.ts";
import { binaryBytes, kademliaIdOf } from "./key.ts";
import { contactNumber } from "./testing/virtual-swarm.ts";

const contacts = Array.from({ length: 600 }, (_, n) => contactNumber(n));
const anyContact = fc.constantFrom(...contacts);
const anyTarget = fc.string().map((text) => kademliaIdOf(Buffer.from(text)));
const ids = (some: Iterable<Contact>): string[] => Array.from(some, ({ id }) => id);

describe("an index of contacts", () => {
  it("finds the nearest as a look at all of them does, whatever came and went", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(anyContact, { maxLength: 600 }),
        fc.array(anyContact, { maxLength: 200 }),
        fc.nat(30),
        anyTarget,
        (added, removed, count, target) => {
          const index = createContactIndex(added);
          const left = new Set(added);
          for (const contact of removed) assert.equal(index.delete(contact.id), left.delete(contact));
          assert.equal(index.size, left.size);
          assert.deepEqual(ids(index), ids(left));
          assert.deepEqual(ids(index.closest(target, count)), ids(closest([...left], target, count)));
        },
      ),
    );
  });

  it("holds a node once, as it was given last", () => {
    const [old] = contacts as [Contact];
    const moved = createContact(binaryBytes(old.id), [{ ip: "10.9.9.9", port: 5001 }]);
    const index = createContactIndex([old, ...contacts.slice(1, 5), moved]);
    assert.equal(index.size, 5);
    assert.equal(index.get(old.id), moved);
    assert.equal(index.closest(kademliaIdOf(binaryBytes(old.id)), 1)[0], moved);
    assert.equal(index.get(contactNumber(999).id), undefined);
  });

  it("is joined with another one, and goes first for a node that is in both", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(anyContact),
        fc.uniqueArray(anyContact),
        fc.nat(30),
        anyTarget,
        (one, two, count, target) => {
          const copies = two.map(({ id, endpoints }) => createContact(binaryBytes(id), endpoints));
          const union = unionOf(createContactIndex(one), createContactIndex(copies));
          const all = [...one, ...copies.filter(({ id }) => !one.some((each) => each.id === id))];
          assert.deepEqual([...union], all);
          assert.deepEqual(union.closest(target, count), closest(all, target, count));
        },
      ),
    );
  });
});
