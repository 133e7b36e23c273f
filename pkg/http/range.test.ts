// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { formatContentRange, formatRange, parseContentRange, parseRange, resolveRange } from "./range.ts";

describe("parseRange", () => {
  it("reads the three forms", () => {
    assert.deepEqual(parseRange("bytes=0-0"), { kind: "from", start: 0, end: 0 });
    assert.deepEqual(parseRange("bytes= 5- "), { kind: "from", start: 5 });
    assert.deepEqual(parseRange("bytes=-7"), { kind: "suffix", lengthBytes: 7 });
  });

  it("refuses everything else", () => {
    const bad = [
      "",
      "bytes",
      "bytes=",
      "bytes=-",
      "bytes=-0",
      "bytes=2-1",
      "bytes=0-1,3-4",
      "Bytes=0-1",
      "items=0-1",
      "bytes=a-b",
      "bytes=0x1-2",
      "bytes=1.5-2",
      "bytes=--1",
      "bytes=0-9999999999999999",
      "bytes 0-1",
    ];
    for (const header of bad) assert.equal(parseRange(header), undefined, header);
  });

  it("never throws and only gives ranges that lie inside the content", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.tuple(fc.nat(), fc.nat()).map(([a, b]) => `bytes=${a}-${b}`),
        ),
        fc.nat(),
        (header, size) => {
          const parsed = parseRange(header);
          const range = parsed && resolveRange(parsed, size);
          if (range) assert.ok(0 <= range.start && range.start <= range.end && range.end < size);
        },
      ),
    );
  });
});

describe("resolveRange", () => {
  it("clamps an end beyond the content and a suffix longer than it", () => {
    assert.deepEqual(resolveRange({ kind: "from", start: 3, end: 99 }, 10), { start: 3, end: 9 });
    assert.deepEqual(resolveRange({ kind: "suffix", lengthBytes: 99 }, 10), { start: 0, end: 9 });
  });

  it("has no answer for a start at or beyond the end, or empty content", () => {
    assert.equal(resolveRange({ kind: "from", start: 10 }, 10), undefined);
    assert.equal(resolveRange({ kind: "suffix", lengthBytes: 1 }, 0), undefined);
  });
});

describe("Content-Range", () => {
  it("is read as it was written", () => {
    fc.assert(
      fc.property(fc.nat(1e9), fc.nat(1e9), fc.integer({ min: 1, max: 1e9 }), (start, more, rest) => {
        const range = { start, end: start + more };
        const size = start + more + rest;
        assert.deepEqual(parseContentRange(formatContentRange(range, size)), { ...range, sizeBytes: size });
        assert.deepEqual(parseRange(formatRange(range)), { kind: "from", ...range });
      }),
    );
  });

  it("is refused when malformed, reversed, beyond the size or of unknown size", () => {
    for (const header of [
      "",
      "bytes 0-1",
      "bytes */5",
      "bytes 0-1/*",
      "bytes 2-1/5",
      "bytes 0-5/5",
      "items 0-1/5",
    ]) {
      assert.equal(parseContentRange(header), undefined, header);
    }
  });
});
