// SPDX-License-Identifier: Apache-2.0
import { createRecordTable } from "./record-table.ts";

/** Who else holds which key: the provider records that other nodes left here. Everything in it is bounded and ends by itself. */
export interface ProviderStore {
  /**
   * Notes that `peer` holds `key` from now on for the validity time. False when there is no room: the store is full
   * and the peer has its fair share already, or too many peers are known.
   */
  add(key: string, peer: string, info: Uint8Array): boolean;
  /** The providers of a key whose record is still valid and that are reachable; in no particular order. */
  find(key: string): ProviderPeer[];
  /** Hides or shows all records of a peer, without forgetting them. Unknown peers are ignored. */
  setReachable(peer: string, reachable: boolean): void;
  hasPeer(peer: string): boolean;
  /** Drops what has expired. */
  sweep(): void;
  readonly recordCount: number;
  readonly peerCount: number;
}

export interface ProviderPeer {
  /** The peer id's multihash as binary string. */
  readonly id: string;
  /** The encoded peer as it goes into a message: id and usable addresses. */
  readonly info: Uint8Array;
}

export interface ProviderStoreOptions {
  /** Life of a record in milliseconds. Default 19 min: Spegel's 15 min interval and twice 2 min delay. At most a day. */
  readonly validityMs?: number;
  /** All records together. Default 120,000, 5.5 MiB: a node of a large swarm gets 20 x the keys of one. */
  readonly maxRecords?: number;
  /** Peers with records. Default and maximum 2048. */
  readonly maxPeers?: number;
}

const PROVIDER_VALIDITY_MS = 19 * 60_000;
const MAX_RECORDS = 120_000;
const MAX_PEERS = 2048;

/**
 * A record is one integer of 32 bits: 11 bits for the peer's place in the table and 20 bits for the time in steps of
 * 250 ms (which wraps after three days, more than any record lives).
 */
const TIME_BITS = 20;
const TIME_MASK = 2 ** TIME_BITS - 1;
const TICK_MS = 250;

interface Slot extends ProviderPeer {
  info: Uint8Array;
  reachable: boolean;
  records: number;
}

export function createProviderStore(
  deps: { readonly now: () => number },
  options: ProviderStoreOptions = {},
): ProviderStore {
  const validityTicks = Math.ceil(Math.min(options.validityMs ?? PROVIDER_VALIDITY_MS, 86_400_000) / TICK_MS);
  const maxRecords = options.maxRecords ?? MAX_RECORDS;
  const maxPeers = Math.min(options.maxPeers ?? MAX_PEERS, MAX_PEERS);
  const records = createRecordTable();
  const slots: (Slot | undefined)[] = [];
  const places = new Map<string, number>();
  const freePlaces: number[] = [];

  const nowTick = (): number => Math.floor(deps.now() / TICK_MS) & TIME_MASK;
  const pack = (place: number, tick: number): number => (place << TIME_BITS) | tick;
  const placeOf = (record: number): number => record >>> TIME_BITS;
  const isValid = (record: number, tick: number): boolean => ((tick - record) & TIME_MASK) < validityTicks;

  function placeFor(peer: string, info: Uint8Array): number | undefined {
    const known = places.get(peer);
    if (known !== undefined) {
      const slot = slots[known] as Slot;
      slot.reachable = true;
      if (Buffer.compare(slot.info, info) !== 0) slot.info = Uint8Array.from(info);
      return known;
    }
    if (places.size >= maxPeers) {
      // Whoever comes under ever new identities must not keep others out: those who are gone make room.
      if (slots.every((slot) => slot?.reachable !== false)) return undefined;
      retain((record) => (slots[placeOf(record)] as Slot).reachable);
    }
    const place = freePlaces.pop() ?? slots.length;
    slots[place] = { id: peer, info: Uint8Array.from(info), reachable: true, records: 0 };
    places.set(peer, place);
    return place;
  }

  function releaseIfEmpty(place: number): void {
    const slot = slots[place];
    if (slot === undefined || slot.records > 0) return;
    places.delete(slot.id);
    slots[place] = undefined;
    freePlaces.push(place);
  }

  /** Keeps the records that `keep` accepts, in one pass over everything; peers without records are forgotten, except the one at `busyPlace`. */
  function retain(keep: (record: number) => boolean, busyPlace?: number): void {
    records.retain((record) => {
      if (keep(record)) return true;
      (slots[placeOf(record)] as Slot).records--;
      return false;
    });
    for (let place = 0; place < slots.length; place++) if (place !== busyPlace) releaseIfEmpty(place);
  }

  const fairShare = (): number => Math.floor(maxRecords / Math.max(places.size, 1));

  /** Takes from the peers that hold more than their share, so that there is room for `place`; false when it has its share itself. */
  function makeRoom(place: number): boolean {
    const share = fairShare();
    if ((slots[place] as Slot).records >= share) return false;
    const surplus = slots.map((slot) => Math.max((slot?.records ?? 0) - share, 0));
    if (surplus.every((count) => count === 0)) return false;
    retain((record) => {
      const owner = placeOf(record);
      if (surplus[owner] === 0) return true;
      (surplus[owner] as number)--;
      return false;
    }, place);
    return records.size < maxRecords;
  }

  return {
    get recordCount() {
      return records.size;
    },
    get peerCount() {
      return places.size;
    },
    hasPeer: (peer) => places.has(peer),
    setReachable(peer, reachable) {
      const place = places.get(peer);
      if (place !== undefined) (slots[place] as Slot).reachable = reachable;
    },
    add(key, peer, info) {
      const place = placeFor(peer, info);
      if (place === undefined) return false;
      const record = pack(place, nowTick());
      if (records.replace(key, record, (each) => placeOf(each) === place)) return true;
      if (records.size >= maxRecords && !makeRoom(place)) {
        releaseIfEmpty(place);
        return false;
      }
      records.add(key, record);
      (slots[place] as Slot).records++;
      return true;
    },
    find(key) {
      const tick = nowTick();
      const found: ProviderPeer[] = [];
      for (const record of records.get(key)) {
        const slot = slots[placeOf(record)];
        if (slot?.reachable === true && isValid(record, tick)) found.push(slot);
      }
      return found;
    },
    sweep() {
      const tick = nowTick();
      retain((record) => isValid(record, tick));
    },
  };
}
