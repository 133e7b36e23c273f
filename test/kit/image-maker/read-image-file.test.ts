// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { hasCode } from "#errors";
import { makeImage } from "./index.ts";
import { readImageFile } from "./read-image-file.ts";
import { readTar } from "./read-tar.ts";

const platform = { os: "linux", architecture: "amd64" };
let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "image-file-"));
});
after(async () => {
  await rm(root, { recursive: true, force: true });
});

for (const compression of ["none", "gzip", "zstd"] as const) {
  test(`a file is read out of the topmost layer of an image with compression ${compression}`, async (t) => {
    const layout = await makeImage(
      join(root, compression),
      { seed: "file", layerSizesBytes: [1000, 3_000_000], compression, index: true },
      { signal: t.signal },
    );
    const bytes = await readImageFile(layout, "/content.bin", { platform, signal: t.signal });
    assert.equal(bytes.length, 3_000_000);
    const again = await readImageFile(layout, "/content.bin", { platform, signal: t.signal });
    assert.equal(
      createHash("sha1").update(again).digest("hex"),
      createHash("sha1").update(bytes).digest("hex"),
    );
    await assert.rejects(readImageFile(layout, "/absent", { platform, signal: t.signal }), (error) =>
      hasCode(error, "IMAGE_FILE_MISSING"),
    );
    const foreign = { os: "linux", architecture: "s390x" };
    await assert.rejects(
      readImageFile(layout, "/content.bin", { platform: foreign, signal: t.signal }),
      (error) => hasCode(error, "IMAGE_PLATFORM_MISSING"),
    );
  });
}

test("a file that was put into an image comes out of it as it was", async (t) => {
  const script = Buffer.from("#!/bin/sh\nexec true\n");
  const layout = await makeImage(
    join(root, "files"),
    { seed: "files", layerSizesBytes: [10], files: [{ path: "/usr/bin/tool", mode: 0o755, bytes: script }] },
    { signal: t.signal },
  );
  assert.deepEqual(await readImageFile(layout, "/usr/bin/tool", { platform, signal: t.signal }), script);
});

for (const format of ["ustar", "gnu", "pax"]) {
  test(`archives of tar in format ${format} are read, long names and folders included`, async () => {
    const folder = join(root, `tar-${format}`);
    const deep = join("a".repeat(60), "b".repeat(60), format === "ustar" ? "c" : "c".repeat(120));
    await mkdir(join(folder, deep, ".."), { recursive: true });
    await writeFile(join(folder, deep), "deep");
    await writeFile(join(folder, "short"), "x".repeat(700));
    const archive = join(root, `${format}.tar`);
    execFileSync("tar", [`--format=${format}`, "-cf", archive, "-C", folder, "."]);
    const found = new Map<string, string>();
    for await (const entry of readTar(piecesOf(await readFile(archive), 333))) {
      if (entry.kind === "file") found.set(entry.name, (await entry.read()).toString());
    }
    const expected = new Map([["./short", "x".repeat(700)]]).set(`./${deep}`, "deep");
    assert.deepEqual(found, expected);
  });
}

test("whatever the bytes are, reading ends, with entries or an error", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 3000 }), async (bytes) => {
      try {
        for await (const entry of readTar(piecesOf(Buffer.from(bytes), 100))) await entry.read();
      } catch (error) {
        assert.match((error as Error).message, /tar header/);
      }
    }),
    { numRuns: 300 },
  );
});

async function* piecesOf(bytes: Buffer, sizeBytes: number): AsyncGenerator<Buffer> {
  for (let start = 0; start < bytes.length; start += sizeBytes)
    yield bytes.subarray(start, start + sizeBytes);
}
