// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { readSmallFile } from "./index.ts";

describe("readSmallFile", () => {
  it("reads up to its limit and not a byte more", async () => {
    const directory = await mkdtemp(join(tmpdir(), "small-"));
    const path = join(directory, "file");
    try {
      for (const size of [0, 1, 99, 100]) {
        await writeFile(path, "x".repeat(size));
        assert.equal((await readSmallFile(path, { maxBytes: 100 })).length, size);
      }
      await writeFile(path, "x".repeat(101));
      await assert.rejects(readSmallFile(path, { maxBytes: 100 }), RangeError);
      await assert.rejects(readSmallFile(join(directory, "absent"), { maxBytes: 1 }), { code: "ENOENT" });
      await assert.rejects(readSmallFile(directory, { maxBytes: 1 }), { code: "EISDIR" });
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("does not trust the size that a file claims", async () => {
    await assert.rejects(readSmallFile("/dev/zero", { maxBytes: 100_000 }), RangeError);
  });
});
