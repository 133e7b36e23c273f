// SPDX-License-Identifier: Apache-2.0

import type { AddressPolicy } from "./address-policy.ts";
import { type Contact, closest, createContact, distanceTo } from "./contact.ts";
import { type Endpoint, parseEndpoint } from "./ip-address.ts";
import { binaryBytes, binaryString, kademliaIdOf, multihashOf } from "./key.ts";
import type { PeerClient } from "./ports.ts";
import { REPLICATION } from "./protocol/answer.ts";
import { decodeMessage, decodePeer, encodeMessage, idOfPeer, MessageType } from "./protocol/message.ts";

export interface SearchDeps {
  readonly client: PeerClient;
  readonly policy: AddressPolicy;
  /** Where a search begins: the routing table, and other nodes that are known. */
  readonly contacts: () => Iterable<Contact>;
  /** A node of the routing table: what is known of it there is taken over what others say. */
  readonly contact?: (id: string) => Contact | undefined;
  /** A node as others named it before. */
  readonly named?: (id: string) => Contact | undefined;
  /** Default: `createContact`. Many nodes in one process may share what they know. */
  readonly createContact?: typeof createContact;
  /** Nodes that were tried in vain lately: whoever names them, they are not asked again soon. */
  readonly isDistrusted?: (id: string) => boolean;
  /** Own id as binary string, never asked. */
  readonly selfId: string;
  /** Every node that an answer names, with addresses. */
  readonly onLearned?: (contact: Contact) => void;
  /** A node that did not answer: someone should look after it. */
  readonly onSilent: (contact: Contact) => void;
}

export interface SearchOptions {
  /** Nodes asked at a time. Default 5. */
  readonly parallelism?: number;
  /** The search is over when this many nodes nearest to the key have answered. Default 5, in a swarm of hundreds 10. */
  readonly resiliency?: number;
  /** A node that needs longer no longer holds the search up; its answer still counts if it comes. Default 40 ms. */
  readonly slowAfterMs?: number;
  /** Nodes asked in one search at most. Default 40. */
  readonly maxRequests?: number;
}

const PARALLELISM = 5;
const RESILIENCY = 5;
/**
 * In a swarm of more than so many nodes hardly one knows all others: the few that are nearest to a key may be those that
 * its holder has not heard of yet. It left records on twenty, and half of these are asked before a key counts as missing.
 */
const LARGE_SWARM = 200;
const LARGE_RESILIENCY = 10;
const SLOW_AFTER_MS = 40;
const MAX_REQUESTS = 40;
/** A search does not end before this many nodes have answered, as long as there are others that may. */
const MIN_ANSWERS = 2;
/** Closer nodes taken from one answer. */
const MAX_CLOSER_PEERS = REPLICATION;
/** Providers taken from one answer. */
const MAX_PROVIDERS = 64;

type State = "new" | "asked" | "slow" | "answered" | "failed";

interface Candidate {
  readonly contact: Contact;
  readonly distance: number;
  /** Asked nodes that led to it, itself included. */
  readonly hops: number;
  state: State;
}

/**
 * Walks towards a key as Kademlia does: asks the nearest nodes known, learns of nearer ones from their answers, and ends
 * when the nearest of all have answered. `onProvider` gets every provider as soon as it is named, each once.
 * Never throws: nodes that fail are passed over.
 */
export async function search(
  deps: SearchDeps,
  target: {
    readonly type: typeof MessageType.GET_PROVIDERS | typeof MessageType.FIND_NODE;
    readonly key: Uint8Array;
    /** `hops`: over how many nodes the way to it went. */
    readonly onProvider?: (provider: Contact, hops: number) => void;
    readonly signal: AbortSignal;
  },
  options: SearchOptions = {},
): Promise<void> {
  const parallelism = options.parallelism ?? PARALLELISM;
  const slowAfterMs = options.slowAfterMs ?? SLOW_AFTER_MS;
  const maxRequests = options.maxRequests ?? MAX_REQUESTS;
  const { key, signal } = target;
  const kademliaId = kademliaIdOf(key);
  const distance = distanceTo(kademliaId);
  const nearest = closest(deps.contacts(), kademliaId, REPLICATION);
  const isLarge = sizeByDensity(nearest, distance) > LARGE_SWARM;
  const resiliency = options.resiliency ?? (isLarge ? LARGE_RESILIENCY : RESILIENCY);
  const request = encodeMessage({ type: target.type, key });
  const seen = new Set<string>([deps.selfId]);
  const provided = new Set<string>([deps.selfId]);
  /** Nearest first. */
  const candidates: Candidate[] = [];
  const over = Promise.withResolvers<void>();
  let requests = 0;
  let ended = false;
  /** The next question waits for a turn of the event loop. */
  let turn: NodeJS.Immediate | undefined;

  function end(): void {
    ended = true;
    clearImmediate(turn);
    over.resolve();
  }

  function consider(contacts: Iterable<Contact>, hops: number): void {
    for (const contact of contacts) {
      if (seen.has(contact.id)) continue;
      seen.add(contact.id);
      candidates.push({ contact, distance: distance(contact), hops, state: "new" });
    }
    candidates.sort((a, b) => a.distance - b.distance);
  }

  /**
   * Asks the nearest node that was not asked yet, or ends the search. Further nodes are asked one by one, each a turn of
   * the event loop later: on a fast network the first answer is there before, and often makes the others needless.
   */
  function advance(): void {
    if (ended) return;
    let alive = 0;
    let promising = 0;
    let answers = 0;
    let running = 0;
    let nearestHaveAnswered = true;
    let next: Candidate | undefined;
    for (const candidate of candidates) {
      const { state } = candidate;
      if (state === "failed") continue;
      alive++;
      if (state === "slow") continue;
      if (promising < resiliency && state !== "answered") nearestHaveAnswered = false;
      if (promising < Math.max(resiliency, parallelism) && state === "new") next ??= candidate;
      if (state === "answered") answers++;
      if (state === "asked") running++;
      promising++;
    }
    if (nearestHaveAnswered && answers >= Math.min(MIN_ANSWERS, alive)) return end();
    if (nearestHaveAnswered && promising <= answers) return; // the slow ones decide
    if (turn !== undefined || running >= parallelism || next === undefined) return;
    if (requests >= maxRequests) {
      for (const candidate of candidates) if (candidate.state === "new") candidate.state = "failed";
      return advance();
    }
    requests++;
    void ask(next);
    if (running + 1 < parallelism) {
      turn = setImmediate(() => {
        turn = undefined;
        advance();
      });
    }
  }

  async function ask(candidate: Candidate): Promise<void> {
    candidate.state = "asked";
    const slow = setTimeout(() => {
      candidate.state = "slow";
      advance();
    }, slowAfterMs);
    try {
      const frame = await deps.client.request(candidate.contact, request, { signal });
      if (ended) return;
      learn(frame, candidate.hops);
      candidate.state = "answered";
    } catch {
      candidate.state = "failed";
      if (!signal.aborted) deps.onSilent(candidate.contact);
    } finally {
      clearTimeout(slow);
    }
    advance();
  }

  function learn(frame: Uint8Array, hops: number): void {
    const message = decodeMessage(frame);
    for (const provider of readContacts(message.providerPeers.slice(0, MAX_PROVIDERS), provided)) {
      provided.add(provider.id);
      target.onProvider?.(provider, hops);
    }
    const news: Contact[] = [];
    for (const contact of readContacts(message.closerPeers.slice(0, MAX_CLOSER_PEERS), seen, deps.contact)) {
      if (contact.endpoints.length === 0 || deps.isDistrusted?.(contact.id) === true) continue;
      deps.onLearned?.(contact);
      news.push(contact);
    }
    if (news.length > 0) consider(news, hops + 1);
  }

  /** One by one the peers of an answer that are not `known` yet, with the addresses that can be used from here. */
  function* readContacts(
    encodedPeers: readonly Uint8Array[],
    known: ReadonlySet<string>,
    contactWith: (id: string) => Contact | undefined = () => undefined,
  ): Generator<Contact, void, undefined> {
    for (const encoded of encodedPeers) {
      const id = idOfPeer(encoded);
      if (known.has(id)) continue;
      const contact = contactWith(id);
      if (contact !== undefined && contact.endpoints.length > 0) {
        yield contact;
        continue;
      }
      const named = deps.named?.(id);
      if (named !== undefined && Buffer.compare(named.info, encoded) === 0) {
        yield named;
        continue;
      }
      const peer = decodePeer(encoded);
      if (binaryString(peer.id) !== id) continue; // two ids in one
      const endpoints: Endpoint[] = [];
      for (const address of peer.addresses) {
        const endpoint = parseEndpoint(address);
        if (endpoint !== undefined && deps.policy.isUsable(endpoint) && !deps.policy.isOwn(endpoint)) {
          endpoints.push(endpoint);
        }
      }
      yield (deps.createContact ?? createContact)(peer.id, endpoints);
    }
  }

  consider(nearest, 1);
  signal.addEventListener("abort", end, { once: true });
  if (signal.aborted) end();
  advance();
  await over.promise;
  signal.removeEventListener("abort", end);
}

/** How many nodes one region is thought to hold: as many as one answer names, with room for those that it does not know. */
const REGION_SIZE = REPLICATION / 2;
const MAX_REGIONS = 256;
const EXPLORE_PARALLELISM = 4;
const REGION_SEARCH = { parallelism: 2, resiliency: 3, maxRequests: 8, slowAfterMs: 1_000 } as const;
/**
 * From so many parts on two answers about each do: those about its neighbours tell of it as well. A node that does not
 * answer soon is passed over: when the network has just parted, half of those asked are lost, and who joined a moment
 * before would hear too late of the nodes where others look for its records.
 */
const MANY_REGIONS = 32;
const MANY_REGIONS_SEARCH = { parallelism: 1, resiliency: 2, maxRequests: 6, slowAfterMs: 250 } as const;
/** The distances that `distanceTo` gives are below this. */
const KEY_SPACE = 2 ** 48;

/**
 * Asks about every part of the key space once, so that `onLearned` hears of all nodes of a swarm of some thousand. The
 * parts are as many as the nodes known, and the distance of the nearest ones, let expect; when they hold more, they are
 * made smaller.
 */
export async function explore(
  deps: SearchDeps,
  options: {
    /** Own place: how far the neighbours are tells how many nodes there are. */
    readonly self: Contact;
    readonly random: () => number;
    /** Of the parts a choice by chance; without it all. */
    readonly maxParts?: number;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { self, random, maxParts = MAX_REGIONS, signal } = options;
  const expected = expectedNodes(deps.contacts(), self);
  for (let regions = 4, explored = 0; regions <= MAX_REGIONS && !signal.aborted; regions *= 2) {
    if (explored > 0 && [...deps.contacts()].length <= explored * REGION_SIZE) return;
    if (regions * REGION_SIZE < expected && regions < MAX_REGIONS) continue; // too coarse
    const queue = keysByRegion(regions, maxParts, random);
    const worker = async (): Promise<void> => {
      for (let key = queue.pop(); key !== undefined && !signal.aborted; key = queue.pop()) {
        const searchOptions = regions < MANY_REGIONS ? REGION_SEARCH : MANY_REGIONS_SEARCH;
        await search(deps, { type: MessageType.FIND_NODE, key, signal }, searchOptions);
      }
    };
    await Promise.all(Array.from({ length: EXPLORE_PARALLELISM }, worker));
    explored = regions;
  }
}

/** Nodes in the swarm: those known, or more when the nearest ones are nearer than so few would be. */
function expectedNodes(contacts: Iterable<Contact>, self: Contact): number {
  const all = [...contacts];
  const selfId = kademliaIdOf(binaryBytes(self.id));
  return Math.max(all.length, sizeByDensity(closest(all, selfId, REPLICATION), distanceTo(selfId)));
}

/** Nodes in a swarm of which these are the nearest to one place. */
function sizeByDensity(nearest: readonly Contact[], distance: (contact: Contact) => number): number {
  const farthest = nearest.at(-1);
  if (farthest === undefined || nearest.length < REPLICATION) return nearest.length;
  return (REPLICATION * KEY_SPACE) / (distance(farthest) + 1);
}

/** Keys, each in another of `regions` equal parts of the key space (a power of two, at most 256); of these `maxParts` by chance. */
function keysByRegion(regions: number, maxParts: number, random: () => number): Buffer[] {
  const shift = 8 - Math.log2(regions);
  const seen = new Set<number>();
  const any = multihashOf("explore");
  const keys: Buffer[] = [];
  while (keys.length < Math.min(regions, maxParts)) {
    // Any bytes in the form of a multihash do.
    const key = Buffer.from(any);
    key.writeUInt32BE(Math.floor(random() * 2 ** 32), key.length - 4);
    const region = (kademliaIdOf(key)[0] as number) >> shift;
    if (seen.has(region)) continue;
    seen.add(region);
    keys.push(key);
  }
  return keys;
}
