// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { sha256Digest } from "#oci";
import { createBlobDoubts } from "./blob-doubts.ts";

const [a, b, c] = ["a", "b", "c"].map((text) => sha256Digest(text)) as [
  ReturnType<typeof sha256Digest>,
  ReturnType<typeof sha256Digest>,
  ReturnType<typeof sha256Digest>,
];

describe("doubts about blobs", () => {
  it("begin when a blob is asked for after it was relayed, and end after a while", () => {
    let nowMs = 0;
    const doubts = createBlobDoubts({ rememberMs: 100, limit: 10, now: () => nowMs });
    assert.equal(doubts.asked(a), false);
    doubts.relayed(a, ["one"]);
    assert.equal(doubts.doubted(a), false);
    assert.equal(doubts.asked(b), false);
    assert.equal(doubts.asked(a), true);
    assert.equal(doubts.doubted(a), true);
    assert.deepEqual([doubts.suspected(a, "one"), doubts.suspected(a, "two")], [true, false]);
    nowMs = 100;
    assert.equal(doubts.doubted(a), false);
    assert.equal(doubts.asked(a), false);
  });

  it("keep one verdict for each peer and blob", () => {
    const doubts = createBlobDoubts({ rememberMs: 100, limit: 10, now: () => 0 });
    doubts.judge(a, "one", "wrong");
    doubts.judge(a, "two", "wrong");
    doubts.judge(a, "two", "right");
    assert.deepEqual(
      [doubts.verdict(a, "one"), doubts.verdict(a, "two"), doubts.verdict(b, "one")],
      ["wrong", "right", undefined],
    );
  });

  it("are bounded: the oldest go first", () => {
    const doubts = createBlobDoubts({ rememberMs: 100, limit: 2, now: () => 0 });
    for (const digest of [a, b, c]) {
      doubts.relayed(digest, ["one"]);
      doubts.judge(digest, "one", "wrong");
    }
    assert.deepEqual([a, b, c].map(doubts.asked), [false, true, true]);
    assert.deepEqual(
      [a, b, c].map((digest) => doubts.verdict(digest, "one")),
      [undefined, "wrong", "wrong"],
    );
  });
});
