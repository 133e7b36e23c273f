// SPDX-License-Identifier: Apache-2.0

/** What of a Map is used for very many keys. */
export interface ShardedMap<Value> {
  get(key: string): Value | undefined;
  set(key: string, value: Value): void;
  delete(key: string): void;
  /** All entries; the one at hand may be changed or deleted meanwhile. */
  [Symbol.iterator](): Iterator<[string, Value]>;
}

const SHARDS = 32;

/**
 * A Map in 32 parts, for keys whose last character is evenly spread, as that of a hash is.
 *
 * One Map of 130,000 entries grows by a table of 7 MiB while the old one is still there, also when half of its
 * entries are dead: a heap of 40 MiB that is well filled has no room for that, and the process ends. Each of these
 * grows on its own, by 230 KiB.
 */
export function createShardedMap<Value>(): ShardedMap<Value> {
  const shards = Array.from({ length: SHARDS }, () => new Map<string, Value>());
  const shardOf = (key: string): Map<string, Value> =>
    shards[(key.length === 0 ? 0 : key.charCodeAt(key.length - 1)) % SHARDS] as Map<string, Value>;
  return {
    get: (key) => shardOf(key).get(key),
    set: (key, value) => void shardOf(key).set(key, value),
    delete: (key) => void shardOf(key).delete(key),
    *[Symbol.iterator]() {
      for (const shard of shards) yield* shard;
    },
  };
}
