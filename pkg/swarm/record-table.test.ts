// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { binaryString, multihashOf } from "./key.ts";
import { createRecordTable } from "./record-table.ts";

const byNumber = (left: number, right: number): number => left - right;

describe("createRecordTable", () => {
  it("behaves as a Map of lists, for keys of any form", () => {
    const key = fc.oneof(
      fc.integer({ min: 0, max: 20 }).map((number) => binaryString(multihashOf(`key ${number}`))),
      fc.string({ maxLength: 2 }),
      fc.constant(`\x12\x20${"a".repeat(31)}`),
    );
    const step = fc.tuple(fc.constantFrom("add", "replace", "retain"), key, fc.integer({ min: 0, max: 9 }));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const expected = new Map<string, number[]>();
        const table = createRecordTable();
        for (const [action, name, value] of steps) {
          const list = expected.get(name) ?? [];
          if (action === "add") {
            table.add(name, value);
            expected.set(name, [...list, value]);
          } else if (action === "replace") {
            const at = list.indexOf(value);
            assert.equal(
              table.replace(name, value + 10, (each) => each === value),
              at >= 0,
            );
            if (at >= 0) expected.set(name, list.toSpliced(at, 1, value + 10));
          } else {
            table.retain((each) => each % 10 !== value);
            for (const [each, all] of expected)
              expected.set(
                each,
                all.filter((one) => one % 10 !== value),
              );
          }
        }
        for (const [name, list] of expected)
          assert.deepEqual(table.get(name).sort(byNumber), list.sort(byNumber));
        assert.equal(table.size, [...expected.values()].flat().length);
      }),
    );
  });

  it("finds everything among very many, and the rest after most are gone", () => {
    const table = createRecordTable();
    const keys = Array.from({ length: 20_000 }, (_, index) => binaryString(multihashOf(String(index))));
    for (const [index, key] of keys.entries()) table.add(key, index);
    for (const [index, key] of keys.entries()) assert.deepEqual(table.get(key), [index]);
    table.retain((value) => value % 100 === 0);
    assert.equal(table.size, 200);
    for (const [index, key] of keys.entries())
      assert.deepEqual(table.get(key), index % 100 === 0 ? [index] : []);
  });

  it("keeps its records outside of the heap, within 64 bytes each while it is at least half full", () => {
    const table = createRecordTable();
    const before = process.memoryUsage().arrayBuffers;
    const count = 120_000;
    const key = Buffer.from(multihashOf("key"));
    for (let index = 0; index < count; index++) {
      key.writeUInt32BE(index, 2);
      table.add(binaryString(key), index);
    }
    const used = process.memoryUsage().arrayBuffers - before;
    assert.ok(used > count * 36 && used < count * 64, `${used} bytes`);
    table.retain(() => false);
    assert.ok(process.memoryUsage().arrayBuffers - before < 100_000);
  });
});
