// SPDX-License-Identifier: Apache-2.0
import type { Contact, IndexedContacts } from "./contact.ts";
import { createContactIndex } from "./contact-index.ts";

/**
 * Nodes that others named. Unlike those of the routing table they need not be connected and nobody has vouched for them,
 * so they serve to choose whom to ask and where to leave records, and are never passed on.
 */
export interface ContactBook {
  /** Notes a node with addresses. True when it was not known. */
  add(contact: Contact): boolean;
  /** Forgets a node that could not be reached; for a while, longer each time, it is not believed in again. */
  remove(id: string): void;
  /** Whether a node was tried in vain lately. */
  isDistrusted(id: string): boolean;
  /** A node that could be reached after all. */
  trust(id: string): void;
  /** Those named lately. */
  contacts(): IndexedContacts;
  contact(id: string): Contact | undefined;
}

export interface ContactBookOptions {
  /** A node that nobody named for this long is forgotten. Default 10 min. */
  readonly freshMs?: number;
  /** A node that could not be reached is not taken up again for this long, each further time twice as long. Default 5 s to 5 min. */
  readonly distrustMs?: number;
  readonly distrustMaxMs?: number;
  /** Nodes at most, those named longest ago make room. Default 2048. */
  readonly maxContacts?: number;
}

const FRESH_MS = 10 * 60_000;
const DISTRUST_MS = 5_000;
const DISTRUST_MAX_MS = 5 * 60_000;
const MAX_CONTACTS = 2_048;

export function createContactBook(
  deps: { readonly now: () => number },
  options: ContactBookOptions = {},
): ContactBook {
  const freshMs = options.freshMs ?? FRESH_MS;
  const distrustMs = options.distrustMs ?? DISTRUST_MS;
  const distrustMaxMs = options.distrustMaxMs ?? DISTRUST_MAX_MS;
  const maxContacts = options.maxContacts ?? MAX_CONTACTS;
  const index = createContactIndex();
  /** By id, in the order in which they were named last. */
  const namedAtMs = new Map<string, number>();
  const distrusted = new Map<string, { readonly untilMs: number; readonly forMs: number }>();

  const isDistrusted = (id: string): boolean => deps.now() < (distrusted.get(id)?.untilMs ?? 0);

  function drop(id: string): void {
    namedAtMs.delete(id);
    index.delete(id);
  }

  return {
    isDistrusted,
    contact: index.get,
    add(contact) {
      if (isDistrusted(contact.id)) return false;
      const before = namedAtMs.get(contact.id);
      // Nodes are named again and again: while there is room it is noted once in a while.
      const isRecent = before !== undefined && deps.now() - before < freshMs / 16;
      if (isRecent && namedAtMs.size < maxContacts && index.get(contact.id) === contact) return false;
      const isNew = !namedAtMs.delete(contact.id);
      namedAtMs.set(contact.id, deps.now());
      index.set(contact);
      if (namedAtMs.size > maxContacts) drop(namedAtMs.keys().next().value as string);
      return isNew;
    },
    remove(id) {
      drop(id);
      if (isDistrusted(id)) return; // one failure is told by all who met it
      const forMs = Math.min((distrusted.get(id)?.forMs ?? distrustMs / 2) * 2, distrustMaxMs);
      distrusted.delete(id);
      distrusted.set(id, { untilMs: deps.now() + forMs, forMs });
      if (distrusted.size > maxContacts) distrusted.delete(distrusted.keys().next().value as string);
    },
    trust: (id) => void distrusted.delete(id),
    contacts() {
      const limit = deps.now() - freshMs;
      for (const [id, atMs] of namedAtMs) {
        if (atMs >= limit) break;
        drop(id);
      }
      return index;
    },
  };
}
