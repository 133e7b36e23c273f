// SPDX-License-Identifier: Apache-2.0
import type { Logger } from "#log";
import type { Peer } from "#routing";
import type { AddressPolicy } from "./address-policy.ts";
import { type Contact, createContact } from "./contact.ts";
import { SwarmError } from "./errors.ts";
import { type Endpoint, parseEndpoint } from "./ip-address.ts";
import { binaryString, multihashOf } from "./key.ts";
import { decodePeer, MessageType } from "./protocol/message.ts";
import type { ProviderStore } from "./provider-store.ts";
import { type SearchDeps, type SearchOptions, search } from "./search.ts";

export interface Lookups extends Disposable {
  /** See `Router.lookup`. */
  lookup(key: string, options: { readonly count: number; readonly signal: AbortSignal }): AsyncIterable<Peer>;
  readonly running: number;
}

export interface LookupOptions extends SearchOptions {
  /** A search that began earlier than this is not joined any more: nodes may have answered before a key came. Default 50 ms. */
  readonly joinWithinMs?: number;
  /** Time for one whole search. Default 5 s. */
  readonly searchTimeoutMs?: number;
  /** Searches at a time; beyond it only the own store is asked. Default 256. */
  readonly maxSearches?: number;
}

const JOIN_WITHIN_MS = 50;
const SEARCH_TIMEOUT_MS = 5_000;
const MAX_SEARCHES = 256;
/** One for all: an AbortController makes a new error with a stack otherwise, for each look-up. */
const NO_LONGER_WANTED = new SwarmError({ code: "SWARM_CLOSED", message: "nobody waits for the answer" });

/** One walk through the swarm, watched by any number of look-ups; it ends early only when nobody watches any more. */
interface SharedSearch {
  readonly startedAtMs: number;
  readonly found: Peer[];
  readonly stop: AbortController;
  ended: boolean;
  watchers: number;
  /** Replaced whenever something changed. */
  change: PromiseWithResolvers<void>;
}

export function createLookups(
  deps: SearchDeps & {
    readonly logger: Logger;
    readonly store: ProviderStore;
    readonly policy: AddressPolicy;
    readonly now: () => number;
    readonly resolved: (seconds: number, hops: number) => void;
  },
  options: LookupOptions = {},
): Lookups {
  const joinWithinMs = options.joinWithinMs ?? JOIN_WITHIN_MS;
  const searchTimeoutMs = options.searchTimeoutMs ?? SEARCH_TIMEOUT_MS;
  const maxSearches = options.maxSearches ?? MAX_SEARCHES;
  /** The youngest search of each key. */
  const joinable = new Map<string, SharedSearch>();
  const running = new Set<SharedSearch>();

  function joinSearch(key: string, multihash: Buffer): SharedSearch | undefined {
    const current = joinable.get(key);
    if (current !== undefined && deps.now() - current.startedAtMs <= joinWithinMs) return current;
    if (running.size >= maxSearches) return undefined;
    const started: SharedSearch = {
      startedAtMs: deps.now(),
      found: [],
      stop: new AbortController(),
      ended: false,
      watchers: 0,
      change: Promise.withResolvers(),
    };
    joinable.set(key, started);
    running.add(started);
    void run(key, multihash, started);
    return started;
  }

  function announceChange(shared: SharedSearch): void {
    const { resolve } = shared.change;
    shared.change = Promise.withResolvers();
    resolve();
  }

  async function run(key: string, multihash: Buffer, shared: SharedSearch): Promise<void> {
    const timer = setTimeout(() => shared.stop.abort(), searchTimeoutMs);
    const onProvider = (contact: Contact, hops: number): void => {
      const peer = toPeer(contact);
      if (peer === undefined) return;
      deps.resolved((deps.now() - shared.startedAtMs) / 1000, hops);
      shared.found.push(peer);
      announceChange(shared);
    };
    try {
      await search(
        deps,
        { type: MessageType.GET_PROVIDERS, key: multihash, onProvider, signal: shared.stop.signal },
        options,
      );
    } catch (err) {
      deps.logger.error("search failed", { key, err });
    } finally {
      clearTimeout(timer);
      shared.ended = true;
      running.delete(shared);
      if (joinable.get(key) === shared) joinable.delete(key);
      announceChange(shared);
    }
  }

  /** Records that other nodes left here: known without asking anyone. */
  function* fromStore(multihash: Buffer): Generator<Peer, void, undefined> {
    for (const { info } of deps.store.find(binaryString(multihash))) {
      const { id, addresses } = decodePeer(info);
      const endpoints = addresses
        .map((address) => parseEndpoint(address))
        .filter((endpoint) => endpoint !== undefined);
      const peer = toPeer(
        createContact(
          id,
          endpoints.filter((endpoint) => !deps.policy.isOwn(endpoint)),
        ),
      );
      if (peer !== undefined) yield peer;
    }
  }

  return {
    get running() {
      return running.size;
    },
    async *lookup(key, { count, signal }) {
      if (signal.aborted || count <= 0) return;
      const startedAtMs = deps.now();
      const multihash = multihashOf(key);
      const given = new Set<string>();
      for (const peer of fromStore(multihash)) {
        deps.resolved((deps.now() - startedAtMs) / 1000, 0);
        given.add(peer.id);
        yield peer;
        if (signal.aborted || given.size >= count) return;
      }
      const shared = joinSearch(key, multihash);
      if (shared === undefined) return;
      const aborted = Promise.withResolvers<void>();
      const onAbort = (): void => aborted.resolve();
      signal.addEventListener("abort", onAbort, { once: true });
      shared.watchers++;
      try {
        for (let next = 0; ; ) {
          for (; next < shared.found.length; next++) {
            const peer = shared.found[next] as Peer;
            if (given.has(peer.id)) continue;
            given.add(peer.id);
            yield peer;
            if (signal.aborted || given.size >= count) return;
          }
          if (shared.ended || signal.aborted) return;
          await Promise.race([shared.change.promise, aborted.promise]);
        }
      } finally {
        signal.removeEventListener("abort", onAbort);
        shared.watchers--;
        if (shared.watchers === 0) shared.stop.abort(NO_LONGER_WANTED);
      }
    },
    [Symbol.dispose]() {
      for (const shared of running) shared.stop.abort();
    },
  };
}

/** A provider as the mirror needs it: IP addresses, each once; undefined when none is left. */
function toPeer(contact: Contact): Peer | undefined {
  const addresses = [...new Set(contact.endpoints.map((endpoint: Endpoint) => endpoint.ip))];
  return addresses.length === 0 ? undefined : { id: contact.peerId.toString(), addresses };
}
