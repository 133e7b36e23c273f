// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { closeSync, openSync, truncateSync } from "node:fs";
import { describe, test } from "node:test";
import fc from "fast-check";
import { transferBuffers } from "./buffer-pool.ts";
import { hashFile } from "./hash-file.ts";
import { readFully } from "./read-fully.ts";
import { noAbort, openFile, patternBytes, sha256 } from "./testing.ts";

describe("readFully", () => {
  test("gives all bytes of a file and of memory, and nothing of an empty content", async () => {
    const bytes = patternBytes(100_000);
    using file = openFile(bytes);
    assert.deepEqual(await readFully(file, 100_000), bytes);
    assert.deepEqual(await readFully({ kind: "memory", bytes, sizeBytes: bytes.length }, 100_000), bytes);
    using empty = openFile(Buffer.alloc(0));
    assert.equal((await readFully(empty, 0)).length, 0);
  });

  test("a content above the limit is not read at all", async () => {
    const bytes = patternBytes(11);
    await assert.rejects(readFully({ kind: "file", fd: -1, sizeBytes: 11 }, 10), {
      code: "TRANSFER_BODY_TOO_LARGE",
    });
    await assert.rejects(readFully({ kind: "memory", bytes, sizeBytes: 11 }, 10), {
      code: "TRANSFER_BODY_TOO_LARGE",
    });
  });

  test("a file that is shorter than said, or closed, is an error", async () => {
    using file = openFile(patternBytes(5000));
    truncateSync(file.path, 4000);
    await assert.rejects(readFully(file, 5000), {
      code: "TRANSFER_SOURCE_FAILED",
      message: /ends at byte 4000/,
    });
    const fd = openSync(file.path, "r");
    closeSync(fd);
    await assert.rejects(readFully({ kind: "file", fd, sizeBytes: 10 }, 10), {
      code: "TRANSFER_SOURCE_FAILED",
    });
  });
});

describe("hashFile", () => {
  test("is the sha256 of the first bytes of the file, whatever the size", async () => {
    const bytes = patternBytes(1_700_000);
    using file = openFile(bytes);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: bytes.length }), async (sizeBytes) => {
        assert.equal(
          await hashFile(file.fd, sizeBytes, { signal: noAbort }),
          sha256(bytes.subarray(0, sizeBytes)),
        );
      }),
      { numRuns: 40, examples: [[0], [1], [262_144], [262_145], [524_288], [bytes.length]] },
    );
    assert.equal(transferBuffers.leasedBytes, 0);
  });

  test("stops when the signal aborts and gives its buffer back", async () => {
    using file = openFile(patternBytes(4_000_000));
    const stop = new AbortController();
    const hashing = hashFile(file.fd, 4_000_000, { signal: stop.signal });
    stop.abort(new Error("enough"));
    await assert.rejects(hashing, /enough/);
    assert.equal(transferBuffers.leasedBytes, 0);
  });

  test("a shorter file is an error", async () => {
    using file = openFile(patternBytes(1000));
    await assert.rejects(hashFile(file.fd, 1001, { signal: noAbort }), { code: "TRANSFER_SOURCE_FAILED" });
    assert.equal(transferBuffers.leasedBytes, 0);
  });
});
