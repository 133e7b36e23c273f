// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { createShardedMap } from "./sharded-map.ts";

describe("createShardedMap", () => {
  it("behaves as one Map", () => {
    const step = fc.tuple(fc.constantFrom("set", "delete"), fc.string({ maxLength: 2 }), fc.integer());
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const expected = new Map<string, number>();
        const map = createShardedMap<number>();
        for (const [action, key, value] of steps) {
          if (action === "set") map.set(key, value);
          else map.delete(key);
          if (action === "set") expected.set(key, value);
          else expected.delete(key);
          assert.equal(map.get(key), expected.get(key));
        }
        assert.deepEqual(new Map(map), expected);
        assert.equal([...map].length, expected.size);
      }),
    );
  });

  it("can be emptied while it is read", () => {
    const map = createShardedMap<number>();
    for (let index = 0; index < 1000; index++) map.set(`key ${index}`, index);
    for (const [key, value] of map) if (value % 2 === 0) map.delete(key);
    assert.equal([...map].length, 500);
  });
});
