// SPDX-License-Identifier: Apache-2.0
import type { Contact } from "./contact.ts";

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
  contacts(): Iterable<Contact>;
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
  /** In the order in which they were named last. */
  const entries = new Map<string, { readonly contact: Contact; readonly namedAtMs: number }>();
  const distrusted = new Map<string, { readonly untilMs: number; readonly forMs: number }>();

  const isDistrusted = (id: string): boolean => deps.now() < (distrusted.get(id)?.untilMs ?? 0);

  return {
    isDistrusted,
    add(contact) {
      if (isDistrusted(contact.id)) return false;
      const isNew = !entries.delete(contact.id);
      entries.set(contact.id, { contact, namedAtMs: deps.now() });
      if (entries.size > maxContacts) entries.delete(entries.keys().next().value as string);
      return isNew;
    },
    remove(id) {
      entries.delete(id);
      if (isDistrusted(id)) return; // one failure is told by all who met it
      const forMs = Math.min((distrusted.get(id)?.forMs ?? distrustMs / 2) * 2, distrustMaxMs);
      distrusted.delete(id);
      distrusted.set(id, { untilMs: deps.now() + forMs, forMs });
      if (distrusted.size > maxContacts) distrusted.delete(distrusted.keys().next().value as string);
    },
    trust: (id) => void distrusted.delete(id),
    *contacts() {
      const limit = deps.now() - freshMs;
      for (const [id, { contact, namedAtMs }] of entries) {
        if (namedAtMs < limit) entries.delete(id);
        else yield contact;
      }
    },
  };
}
