// SPDX-License-Identifier: Apache-2.0
import { createHash, randomFillSync } from "node:crypto";

/** Small numbers by key, several for one key, outside of the JavaScript heap: 44 bytes each. */
export interface RecordTable {
  /** Numbers in the table. */
  readonly size: number;
  /** The numbers of a key, in no particular order. */
  get(key: string): number[];
  /** Puts `value` in the place of the first number of the key that `matches`; false when there is none. */
  replace(key: string, value: number, matches: (value: number) => boolean): boolean;
  /** Adds a number to those of the key. How many there may be is the caller's to decide. */
  add(key: string, value: number): void;
  /** Drops the numbers that `keep` refuses, in one pass over everything; gives memory back when most are gone. */
  retain(keep: (value: number) => boolean): void;
}

const KEY_BYTES = 32;
const KEY_WORDS = KEY_BYTES / 4;
const LEAST_CAPACITY = 256;
/** The first two bytes of a SHA2-256 multihash. */
const SHA2_256_PREFIX = "\x12\x20";
const MULTIHASH_LENGTH = SHA2_256_PREFIX.length + KEY_BYTES;

/**
 * A hash table with chains, in four typed arrays. As strings in a Map the records of 20 peers with 5,000 keys take
 * 20 MiB, and half of the heap that the daemon has; here they take 5 MiB beside it.
 *
 * Keys are SHA2-256 multihashes, kept as their 32 bytes; any other key is kept as its SHA2-256.
 */
export function createRecordTable(): RecordTable {
  let capacity = LEAST_CAPACITY;
  let size = 0;
  let keys = new Uint32Array(capacity * KEY_WORDS);
  let values = new Int32Array(capacity);
  // One more than the place of an entry, so that 0 is the end of a chain.
  let heads = new Int32Array(capacity);
  let next = new Int32Array(capacity);
  const wanted = new Uint32Array(KEY_WORDS);
  const wantedBytes = new Uint8Array(wanted.buffer);
  // Nobody outside can choose keys that all fall into one chain.
  const factors = randomFillSync(new Uint32Array(KEY_WORDS)).map((factor) => factor | 1);

  function bucketOf(words: Uint32Array, offset: number): number {
    let sum = 0;
    for (let word = 0; word < KEY_WORDS; word++)
      sum = (sum + Math.imul(words[offset + word] as number, factors[word] as number)) | 0;
    return sum >>> (1 + Math.clz32(capacity));
  }

  function seek(key: string): void {
    if (key.length === MULTIHASH_LENGTH && key.startsWith(SHA2_256_PREFIX)) {
      for (let at = 0; at < KEY_BYTES; at++) wantedBytes[at] = key.charCodeAt(SHA2_256_PREFIX.length + at);
    } else {
      wantedBytes.set(createHash("sha256").update(key, "latin1").digest());
    }
  }

  function isWanted(place: number): boolean {
    const offset = place * KEY_WORDS;
    for (let word = 0; word < KEY_WORDS; word++) if (keys[offset + word] !== wanted[word]) return false;
    return true;
  }

  function* placesOf(key: string): Generator<number> {
    seek(key);
    for (let link = heads[bucketOf(wanted, 0)] as number; link !== 0; link = next[link - 1] as number) {
      if (isWanted(link - 1)) yield link - 1;
    }
  }

  function link(place: number): void {
    const bucket = bucketOf(keys, place * KEY_WORDS);
    next[place] = heads[bucket] as number;
    heads[bucket] = place + 1;
  }

  /** `transfer` moves or frees the memory now; the collector would leave the old one for long. */
  function resize(wantedCapacity: number): void {
    capacity = wantedCapacity;
    keys = new Uint32Array(keys.buffer.transfer(capacity * KEY_BYTES));
    values = new Int32Array(values.buffer.transfer(capacity * 4));
    next = new Int32Array(next.buffer.transfer(capacity * 4));
    heads.buffer.transfer(0);
    heads = new Int32Array(capacity);
    for (let place = 0; place < size; place++) link(place);
  }

  return {
    get size() {
      return size;
    },
    get(key) {
      return Array.from(placesOf(key), (place) => values[place] as number);
    },
    replace(key, value, matches) {
      for (const place of placesOf(key)) {
        if (!matches(values[place] as number)) continue;
        values[place] = value;
        return true;
      }
      return false;
    },
    add(key, value) {
      if (size === capacity) resize(capacity * 2);
      seek(key);
      keys.set(wanted, size * KEY_WORDS);
      values[size] = value;
      link(size++);
    },
    retain(keep) {
      let kept = 0;
      for (let place = 0; place < size; place++) {
        const value = values[place] as number;
        if (!keep(value)) continue;
        if (kept !== place) {
          keys.copyWithin(kept * KEY_WORDS, place * KEY_WORDS, (place + 1) * KEY_WORDS);
          values[kept] = value;
        }
        kept++;
      }
      if (kept === size) return;
      size = kept;
      let least = capacity;
      while (least > LEAST_CAPACITY && size <= least / 4) least /= 2;
      resize(least);
    },
  };
}
