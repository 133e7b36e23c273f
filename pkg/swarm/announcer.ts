// SPDX-License-Identifier: Apache-2.0
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Logger } from "#log";
import { type Contact, closest } from "./contact.ts";
import { createContactIndex } from "./contact-index.ts";
import { binaryBytes, binaryString, kademliaIdOf, multihashOf } from "./key.ts";
import { REPLICATION } from "./protocol/answer.ts";
import type { ChannelPool } from "./protocol/channel.ts";
import { encodeAddProviders, encodeMessage, MessageType } from "./protocol/message.ts";

/** Keeps the records of this node's keys on the nodes nearest to each. */
export interface Announcer extends Disposable {
  add(keys: readonly string[]): void;
  remove(keys: readonly string[]): void;
  /** A node entered the routing table: it may be one of the nearest to some keys. */
  joined(contact: Contact): void;
  /** A node is gone, and its records with it: the next nearest get them. */
  left(contact: Contact): void;
  /** Whether this node announces the key with this multihash (as binary string). */
  has(multihash: string): boolean;
  readonly keyCount: number;
  /** Keys that wait to be sent for the first time or again. */
  readonly waitingCount: number;
}

export interface AnnouncerOptions {
  /** A record is renewed on average after this time, before it ends. Default 15 min, as in Spegel. */
  readonly intervalMs?: number;
  /** How long changes are collected before they are sent. Default 5 ms for keys, ten times that for a node that comes, a second for further ones and for nodes that go. */
  readonly collectMs?: number;
  /** Nodes sent to at a time. Default 8. */
  readonly parallelism?: number;
  /** Own keys. Default 200,000; further ones are refused with a warning. */
  readonly maxKeys?: number;
}

const INTERVAL_MS = 15 * 60_000;
const COLLECT_MS = 5;
const PARALLELISM = 8;
const MAX_KEYS = 200_000;
/** Rounds of sending that may run at a time. */
const MAX_ROUNDS = 4;
/** Messages with one answer to all of them; two such batches are on their way to a node at a time, so that it need not wait. */
const BATCH = 256;
/** Up to this many records travel over the channel of the look-ups; more get a stream of their own. */
const SMALL_BATCH = 32;
/** Keys planned before other work gets its turn. */
const PLAN_STEP = 512;
/** So many of the nearest nodes of the routing table get a record even if others, known by name alone, seem nearer. */
const TRUSTED_REPLICATION = 5;
const ANYWHERE = Buffer.alloc(32);
const PING = encodeMessage({ type: MessageType.PING });

export function createAnnouncer(
  deps: {
    readonly logger: Logger;
    readonly channels: ChannelPool;
    /** All nodes that may take records. */
    readonly contacts: () => Iterable<Contact>;
    /** Those of them that are known to be alive: some of the nearest of these get every record, whoever else was named. Default all. */
    readonly trusted?: () => Iterable<Contact>;
    /** The own contact as it goes into a record; without endpoints nothing is sent. */
    readonly self: () => Contact;
    readonly now: () => number;
    readonly random: () => number;
    readonly onSilent: (contact: Contact) => void;
  },
  options: AnnouncerOptions = {},
): Announcer {
  const intervalMs = options.intervalMs ?? INTERVAL_MS;
  const collectMs = options.collectMs ?? COLLECT_MS;
  const parallelism = options.parallelism ?? PARALLELISM;
  const maxKeys = options.maxKeys ?? MAX_KEYS;
  /** Own keys by multihash, and when each is to be sent again. */
  const dueAtMs = new Map<string, number>();
  const waiting = new Set<string>();
  const newContacts = new Map<string, Contact>();
  const lostContacts = new Map<string, Contact>();
  /** Come a moment ago; when many come, they are looked at together, because each look goes through all keys. */
  const arrivingContacts = new Map<string, Contact>();
  let arrivedAtMs = Number.NEGATIVE_INFINITY;
  /** Gone a moment ago, perhaps about to come back. */
  const leavingContacts = new Map<string, Contact>();
  const stop = new AbortController();
  const { signal } = stop;
  /** Nodes that did not take their records; tried again at the next renewal if the table still has them. */
  const refused = new Map<string, Contact>();
  let timer: NodeJS.Timeout | undefined;
  let arrivingTimer: NodeJS.Timeout | undefined;
  let leavingTimer: NodeJS.Timeout | undefined;
  let rounds = 0;

  const renewal = setInterval(
    () => {
      const now = deps.now();
      for (const [multihash, due] of dueAtMs) if (due <= now) waiting.add(multihash);
      if (refused.size > 0) {
        for (const contact of deps.contacts())
          if (refused.has(contact.id)) newContacts.set(contact.id, contact);
        refused.clear();
      }
      sendSoon(0);
    },
    Math.min(5_000, Math.max(intervalMs / 20, 1)),
  );
  renewal.unref();

  function sendSoon(delayMs: number): void {
    const isIdle = waiting.size === 0 && newContacts.size === 0 && lostContacts.size === 0;
    if (isIdle || rounds >= MAX_ROUNDS || timer !== undefined || signal.aborted) return;
    timer = setTimeout(() => {
      timer = undefined;
      void send();
    }, delayMs);
  }

  /** One round: what waits now. Rounds overlap, so that a node which is slow to take a long list holds no new key up. */
  async function send(): Promise<void> {
    if (deps.self().endpoints.length === 0) return; // nothing to announce yet; the next renewal looks again
    rounds++;
    const keys = [...waiting];
    const arrived = new Set(newContacts.keys());
    const lost = [...lostContacts.values()];
    waiting.clear();
    newContacts.clear();
    lostContacts.clear();
    try {
      await place(await plan(keys, { isFirst: true }));
      if (arrived.size > 0) {
        const placed = new Set(keys);
        const others = [...dueAtMs.keys()].filter((key) => !placed.has(key));
        await place(await plan(others, { only: arrived }));
      }
      if (lost.length > 0) await replace(lost);
    } catch (err) {
      if (!signal.aborted) deps.logger.error("announcing keys failed", { err });
    } finally {
      rounds--;
      sendSoon(0);
    }
  }

  /** Delivers, and lets the next nearest node stand in for each that did not take its records. */
  async function place(tasks: ReadonlyMap<Contact, readonly string[]>): Promise<void> {
    const failed = await deliver(tasks);
    if (failed.size === 0 || signal.aborted) return;
    const missing = new Map<string, number>();
    for (const keys of failed.values()) for (const key of keys) missing.set(key, (missing.get(key) ?? 0) + 1);
    const without = new Set([...failed.keys()].map(({ id }) => id));
    await deliver(await plan([...missing.keys()], { standIns: { missing, without } }));
  }

  /** Leaves the records that were on nodes which are gone on as many others. */
  async function replace(lost: readonly Contact[]): Promise<void> {
    const contacts = deps.contacts();
    const gone = lost.filter(({ id }) => !isAmong(contacts, id)); // others are back
    if (gone.length === 0) return;
    const without = new Set(gone.map(({ id }) => id));
    const missing = new Map<string, number>();
    const keys = [...dueAtMs.keys()];
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as string;
      if (i % PLAN_STEP === PLAN_STEP - 1) await nextTurn();
      const id = kademliaIdOf(binaryBytes(key));
      const left = closest(contacts, id, REPLICATION);
      if (left.length < REPLICATION) return; // all that are left have all
      const before = closest([...left, ...gone], id, REPLICATION);
      const count = before.filter((contact) => without.has(contact.id)).length;
      if (count > 0) missing.set(key, count);
    }
    await deliver(await plan([...missing.keys()], { standIns: { missing, without } }));
  }

  interface Selection {
    /** The keys are marked as sent. */
    readonly isFirst?: boolean;
    /** These nodes alone, as far as they are among the nearest. */
    readonly only?: ReadonlySet<string>;
    /** Of each key the last so many of the nearest that are left. */
    readonly standIns?: {
      readonly missing: ReadonlyMap<string, number>;
      readonly without: ReadonlySet<string>;
    };
  }

  /** Which keys go to which node. */
  async function plan(keys: readonly string[], selection: Selection): Promise<Map<Contact, string[]>> {
    const { only, standIns } = selection;
    const contacts = except(deps.contacts(), standIns?.without);
    const trusted = except(deps.trusted?.() ?? [], standIns?.without);
    const some = closest(contacts, ANYWHERE, REPLICATION + 1);
    const isFew = some.length <= REPLICATION;
    if (isFew && standIns !== undefined) return new Map(); // all that are left have all
    const tasks = new Map<Contact, string[]>();
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as string;
      if (i % PLAN_STEP === PLAN_STEP - 1) await nextTurn();
      if (!dueAtMs.has(key)) continue; // withdrawn in the meantime
      // A third of the interval is left to chance, so that a burst of keys does not come back as a burst.
      if (selection.isFirst === true) dueAtMs.set(key, deps.now() + intervalMs * (2 / 3 + deps.random() / 3));
      let targets: Iterable<Contact> = some;
      if (!isFew) {
        const id = kademliaIdOf(binaryBytes(key));
        const nearest = closest(contacts, id, REPLICATION);
        targets =
          standIns === undefined
            ? new Set([...nearest, ...closest(trusted, id, TRUSTED_REPLICATION)])
            : nearest.slice(-(standIns.missing.get(key) ?? 0));
      }
      for (const contact of targets) {
        if (only !== undefined && !only.has(contact.id)) continue;
        const list = tasks.get(contact);
        if (list === undefined) tasks.set(contact, [key]);
        else list.push(key);
      }
    }
    return tasks;
  }

  /** @returns the nodes that did not take their records, with these */
  async function deliver(
    tasks: ReadonlyMap<Contact, readonly string[]>,
  ): Promise<Map<Contact, readonly string[]>> {
    const { info } = deps.self();
    const failed = new Map<Contact, readonly string[]>();
    const queue = [...tasks];
    const worker = async (): Promise<void> => {
      for (let task = queue.pop(); task !== undefined; task = queue.pop()) {
        const [contact, keys] = task;
        try {
          await sendTo(contact, keys, info);
        } catch (err) {
          if (signal.aborted) return;
          deps.logger.debug("node did not take records", {
            peer: contact.peerId.toString(),
            keys: keys.length,
            err,
          });
          refused.set(contact.id, contact);
          failed.set(contact, keys);
          deps.onSilent(contact);
        }
      }
    };
    await Promise.all(Array.from({ length: parallelism }, worker));
    return failed;
  }

  /** ADD_PROVIDER has no answer; a PING behind the last one has, and comes when the node has read them all. */
  async function sendTo(contact: Contact, keys: readonly string[], info: Uint8Array): Promise<void> {
    const isSmall = keys.length <= SMALL_BATCH;
    const channel = isSmall ? undefined : deps.channels.dedicated(contact);
    let previous: Promise<unknown> = Promise.resolve();
    try {
      for (let i = 0; i < keys.length; i += BATCH) {
        const bytes = Buffer.concat([encodeAddProviders(keys.slice(i, i + BATCH), info), PING]);
        const current =
          channel === undefined
            ? deps.channels.request(contact, bytes, { signal })
            : channel.request(bytes, { signal });
        current.catch(() => {}); // it is awaited below, or another one has failed before
        await previous;
        previous = current;
      }
      await previous;
    } finally {
      channel?.[Symbol.dispose]();
    }
  }

  return {
    get keyCount() {
      return dueAtMs.size;
    },
    get waitingCount() {
      return waiting.size;
    },
    has: (multihash) => dueAtMs.has(multihash),
    add(keys) {
      for (const key of keys) {
        const multihash = binaryString(multihashOf(key));
        if (dueAtMs.has(multihash)) continue;
        if (dueAtMs.size >= maxKeys) {
          deps.logger.warn("too many keys, not announcing further ones", { maxKeys });
          break;
        }
        dueAtMs.set(multihash, 0);
        waiting.add(multihash);
      }
      sendSoon(collectMs);
    },
    remove(keys) {
      for (const key of keys) {
        const multihash = binaryString(multihashOf(key));
        dueAtMs.delete(multihash);
        waiting.delete(multihash);
      }
    },
    joined(contact) {
      if (dueAtMs.size === 0) return;
      arrivingContacts.set(contact.id, contact);
      const isBurst = deps.now() - arrivedAtMs < collectMs * 200;
      arrivingTimer ??= setTimeout(
        () => {
          arrivingTimer = undefined;
          arrivedAtMs = deps.now();
          for (const [id, each] of arrivingContacts) newContacts.set(id, each);
          arrivingContacts.clear();
          sendSoon(0);
        },
        collectMs * (isBurst ? 200 : 10),
      );
    },
    left(contact) {
      if (dueAtMs.size === 0) return;
      newContacts.delete(contact.id);
      arrivingContacts.delete(contact.id);
      leavingContacts.set(contact.id, contact);
      leavingTimer ??= setTimeout(() => {
        leavingTimer = undefined;
        for (const [id, each] of leavingContacts) lostContacts.set(id, each);
        leavingContacts.clear();
        sendSoon(0);
      }, collectMs * 200);
    },
    [Symbol.dispose]() {
      stop.abort();
      clearTimeout(timer);
      clearTimeout(arrivingTimer);
      clearTimeout(leavingTimer);
      clearInterval(renewal);
    },
  };
}

function isAmong(contacts: Iterable<Contact>, id: string): boolean {
  return closest(contacts, kademliaIdOf(binaryBytes(id)), 1)[0]?.id === id;
}

/** The contacts but for those with these ids. */
function except(contacts: Iterable<Contact>, ids: ReadonlySet<string> = new Set()): Iterable<Contact> {
  const present = [...ids].filter((id) => isAmong(contacts, id));
  if (present.length === 0) return contacts;
  const others = createContactIndex(contacts);
  for (const id of present) others.delete(id);
  return others;
}
