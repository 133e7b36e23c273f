// SPDX-License-Identifier: Apache-2.0
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Logger } from "#log";
import { type Contact, closest } from "./contact.ts";
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
  /** Whether this node announces the key with this multihash (as binary string). */
  has(multihash: string): boolean;
  readonly keyCount: number;
  /** Keys that wait to be sent for the first time or again. */
  readonly waitingCount: number;
}

export interface AnnouncerOptions {
  /** A record is renewed on average after this time, before it ends. Default 15 min, as in Spegel. */
  readonly intervalMs?: number;
  /** How long changes are collected before they are sent. Default 5 ms for keys, ten times that for nodes. */
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
/** Messages that are sent before an answer is awaited. */
const BATCH = 128;
/** Up to this many records travel over the channel of the look-ups; more get a stream of their own. */
const SMALL_BATCH = 32;
/** Keys planned before other work gets its turn. */
const PLAN_STEP = 512;
const PING = encodeMessage({ type: MessageType.PING });

export function createAnnouncer(
  deps: {
    readonly logger: Logger;
    readonly channels: ChannelPool;
    readonly contacts: () => Iterable<Contact>;
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
  const stop = new AbortController();
  const { signal } = stop;
  /** Nodes that did not take their records; tried again at the next renewal if the table still has them. */
  const refused = new Map<string, Contact>();
  let timer: NodeJS.Timeout | undefined;
  let rounds = 0;

  const renewal = setInterval(
    () => {
      const now = deps.now();
      for (const [multihash, due] of dueAtMs) if (due <= now) waiting.add(multihash);
      for (const contact of deps.contacts())
        if (refused.has(contact.id)) newContacts.set(contact.id, contact);
      refused.clear();
      sendSoon(0);
    },
    Math.min(5_000, Math.max(intervalMs / 20, 1)),
  );
  renewal.unref();

  function sendSoon(delayMs: number): void {
    const isIdle = waiting.size === 0 && newContacts.size === 0;
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
    waiting.clear();
    newContacts.clear();
    try {
      await deliver(await plan(keys, undefined));
      if (arrived.size > 0) {
        const placed = new Set(keys);
        await deliver(
          await plan(
            [...dueAtMs.keys()].filter((key) => !placed.has(key)),
            arrived,
          ),
        );
      }
    } catch (err) {
      if (!signal.aborted) deps.logger.error("announcing keys failed", { err });
    } finally {
      rounds--;
      sendSoon(0);
    }
  }

  /** Which keys go to which node; with `only`, those nodes alone are looked at. Keys are marked as sent. */
  async function plan(
    keys: readonly string[],
    only: ReadonlySet<string> | undefined,
  ): Promise<Map<Contact, string[]>> {
    const contacts = [...deps.contacts()];
    const tasks = new Map<Contact, string[]>();
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as string;
      if (!dueAtMs.has(key)) continue; // withdrawn in the meantime
      // A third of the interval is left to chance, so that a burst of keys does not come back as a burst.
      if (only === undefined) dueAtMs.set(key, deps.now() + intervalMs * (2 / 3 + deps.random() / 3));
      const nearest =
        contacts.length <= REPLICATION
          ? contacts
          : closest(contacts, kademliaIdOf(binaryBytes(key)), REPLICATION);
      for (const contact of nearest) {
        if (only !== undefined && !only.has(contact.id)) continue;
        const list = tasks.get(contact);
        if (list === undefined) tasks.set(contact, [key]);
        else list.push(key);
      }
      if (i % PLAN_STEP === PLAN_STEP - 1) await nextTurn();
    }
    return tasks;
  }

  async function deliver(tasks: ReadonlyMap<Contact, readonly string[]>): Promise<void> {
    const { info } = deps.self();
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
          deps.onSilent(contact);
        }
      }
    };
    await Promise.all(Array.from({ length: parallelism }, worker));
  }

  /** ADD_PROVIDER has no answer; a PING behind the last one has, and comes when the node has read them all. */
  async function sendTo(contact: Contact, keys: readonly string[], info: Uint8Array): Promise<void> {
    const isSmall = keys.length <= SMALL_BATCH;
    const channel = isSmall ? undefined : deps.channels.dedicated(contact);
    try {
      for (let i = 0; i < keys.length; i += BATCH) {
        const bytes = Buffer.concat([encodeAddProviders(keys.slice(i, i + BATCH), info), PING]);
        await (channel === undefined
          ? deps.channels.request(contact, bytes, { signal })
          : channel.request(bytes, { signal }));
      }
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
      newContacts.set(contact.id, contact);
      sendSoon(collectMs * 10);
    },
    [Symbol.dispose]() {
      stop.abort();
      clearTimeout(timer);
      clearInterval(renewal);
    },
  };
}
