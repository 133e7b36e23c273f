// SPDX-License-Identifier: Apache-2.0
import { type Contact, closest, distanceTo, type IndexedContacts } from "./contact.ts";

/** Contacts by id and by their place in the key space. */
export interface ContactIndex extends IndexedContacts {
  readonly size: number;
  get(id: string): Contact | undefined;
  /** Adds a contact, or takes the place of the one with the same id. */
  set(contact: Contact): void;
  delete(id: string): boolean;
}

/** The key space is cut into this many parts: of a swarm of thousands each holds a few dozen nodes at most. */
const PARTS = 256;
const partOf = (contact: Contact): number => contact.high >>> 24;

/**
 * Each part of the key space is nearer to a key as a whole than the next one, so the nearest contacts are found in the
 * first few: the cost does not grow with the swarm.
 */
export function createContactIndex(contacts: Iterable<Contact> = []): ContactIndex {
  const byId = new Map<string, Contact>();
  const parts: Contact[][] = [];

  function remove(contact: Contact): void {
    const part = parts[partOf(contact)] as Contact[];
    part[part.indexOf(contact)] = part.at(-1) as Contact;
    part.pop();
  }

  function set(contact: Contact): void {
    const known = byId.get(contact.id);
    if (known === contact) return;
    if (known !== undefined) remove(known);
    byId.set(contact.id, contact);
    const part = partOf(contact);
    const members = parts[part];
    if (members === undefined) parts[part] = [contact];
    else members.push(contact);
  }

  for (const contact of contacts) set(contact);

  return {
    get size() {
      return byId.size;
    },
    get: (id) => byId.get(id),
    set,
    delete(id) {
      const known = byId.get(id);
      if (known === undefined) return false;
      remove(known);
      return byId.delete(id);
    },
    closest(target, count) {
      const nearest: Contact[] = [];
      const part = target.readUInt8(0);
      for (let distance = 0; distance < PARTS && nearest.length < count; distance++) {
        const members = parts[part ^ distance];
        if (members === undefined || members.length === 0) continue;
        nearest.push(...closest(members, target, count - nearest.length));
      }
      return nearest;
    },
    [Symbol.iterator]: () => byId.values(),
  };
}

/** The contacts of both, each once, and as the first knows it. */
export function unionOf(first: IndexedContacts, second: IndexedContacts): IndexedContacts {
  return {
    closest(target, count) {
      const distance = distanceTo(target);
      const ones = first.closest(target, count);
      const others = second.closest(target, count);
      const nearest: Contact[] = [];
      let at = 0;
      for (const one of ones) {
        const own = distance(one);
        for (; at < others.length && distance(others[at] as Contact) <= own; at++) {
          const other = others[at] as Contact;
          if (other.id !== one.id) nearest.push(other);
        }
        nearest.push(one);
      }
      return nearest.concat(others.slice(at)).slice(0, count);
    },
    *[Symbol.iterator]() {
      const ids = new Set<string>();
      for (const contact of first) {
        ids.add(contact.id);
        yield contact;
      }
      for (const contact of second) if (!ids.has(contact.id)) yield contact;
    },
  };
}
