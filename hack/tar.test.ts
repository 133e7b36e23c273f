// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, it } from "node:test";
import { createTar, type TarEntry } from "./tar.ts";

const ENTRIES: readonly TarEntry[] = [
  { kind: "directory", path: "lib" },
  { kind: "file", path: "lib/empty", content: new Uint8Array(0) },
  { kind: "file", path: "lib/block", mode: 0o755, content: new Uint8Array(512).fill(65) },
  { kind: "file", path: "odd", content: Buffer.from("text\n") },
];

describe("createTar", () => {
  it("writes what tar reads, owned by root and from the beginning of time", () => {
    const list = execFileSync("tar", ["--numeric-owner", "--utc", "-tvf", "-"], {
      input: createTar(ENTRIES),
      encoding: "utf8",
      env: { ...process.env, LC_ALL: "C" },
    });
    assert.deepEqual(
      list
        .trim()
        .split("\n")
        .map((line) => line.replace(/ +/g, " ")),
      [
        "drwxr-xr-x 0/0 0 1970-01-01 00:00 lib/",
        "-rw-r--r-- 0/0 0 1970-01-01 00:00 lib/empty",
        "-rwxr-xr-x 0/0 512 1970-01-01 00:00 lib/block",
        "-rw-r--r-- 0/0 5 1970-01-01 00:00 odd",
      ],
    );
    const odd = execFileSync("tar", ["-xOf", "-", "odd"], { input: createTar(ENTRIES), encoding: "utf8" });
    assert.equal(odd, "text\n");
  });

  it("gives the same bytes for the same entries", () => {
    assert.deepEqual(createTar(ENTRIES), createTar(ENTRIES));
  });

  it("refuses a path that the header cannot hold", () => {
    const entry: TarEntry = { kind: "file", path: "x".repeat(101), content: new Uint8Array(0) };
    assert.throws(() => createTar([entry]), /more than 100 bytes/);
  });
});
