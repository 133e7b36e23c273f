// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { hasCode } from "#errors";
import { digestHex } from "#oci";
import { type ImageLayout, makeImage, readImageLayout } from "./index.ts";

const KIB = 1024;
let root: string;
let count = 0;

before(async () => {
  root = await mkdtemp(join(tmpdir(), "image-maker-"));
});
after(async () => {
  await rm(root, { recursive: true, force: true });
});
const folder = (): string => join(root, String(count++));

async function digests(layout: ImageLayout): Promise<void> {
  for (const object of layout.objects) {
    const bytes = await readFile(layout.blobPath(object.digest));
    assert.equal(createHash("sha256").update(bytes).digest("hex"), digestHex(object.digest));
    assert.equal(bytes.length, object.sizeBytes);
  }
}

test("the same seed gives the same digests, another seed others", async (t) => {
  const specification = { seed: "a", layerSizesBytes: [10 * KIB, 3] };
  const first = await makeImage(folder(), specification, { signal: t.signal });
  const second = await makeImage(folder(), specification, { signal: t.signal });
  const other = await makeImage(folder(), { ...specification, seed: "b" }, { signal: t.signal });
  assert.deepEqual(second.objects, first.objects);
  assert.notEqual(other.root.digest, first.root.digest);
  await digests(first);
  assert.deepEqual(
    first.objects.map((object) => object.kind),
    ["config", "layer", "layer", "manifest"],
  );
});

test("no two layers of an image are equal, and none can be compressed", async (t) => {
  const layout = await makeImage(
    folder(),
    { seed: "x", layerSizesBytes: [64 * KIB, 64 * KIB], compression: "gzip" },
    { signal: t.signal },
  );
  const layers = layout.objects.filter((object) => object.kind === "layer");
  assert.equal(new Set(layers.map((layer) => layer.digest)).size, 2);
  for (const layer of layers) assert.ok(layer.sizeBytes > 64 * KIB);
});

for (const compression of ["none", "gzip", "zstd"] as const) {
  test(`a layer with compression ${compression} is a tar whose digest is the config's diff id`, async (t) => {
    const layout = await makeImage(
      folder(),
      { seed: compression, layerSizesBytes: [5 * 1024 * KIB + 7], compression },
      { signal: t.signal },
    );
    await digests(layout);
    const layer = layout.objects.find((object) => object.kind === "layer");
    const config = layout.objects.find((object) => object.kind === "config");
    assert.ok(layer && config);
    const bytes = await readFile(layout.blobPath(layer.digest));
    const tar =
      compression === "gzip" ? gunzipSync(bytes) : compression === "zstd" ? zstdDecompressSync(bytes) : bytes;
    const parsed = JSON.parse(await readFile(layout.blobPath(config.digest), "utf8"));
    assert.deepEqual(parsed.rootfs.diff_ids, [`sha256:${createHash("sha256").update(tar).digest("hex")}`]);
    const path = join(root, `${compression}.tar`);
    await writeFile(path, tar);
    assert.match(
      execFileSync("tar", ["-tvf", path], { encoding: "utf8" }),
      new RegExp(` ${5 * 1024 * KIB + 7} .*content.bin`),
    );
  });
}

test("several platforms stand under one index, with docker's media types when asked", async (t) => {
  const platforms = [
    { os: "linux", architecture: "amd64" },
    { os: "linux", architecture: "arm64", variant: "v8" },
  ];
  for (const mediaTypes of ["oci", "docker"] as const) {
    const layout = await makeImage(
      folder(),
      { seed: "multi", layerSizesBytes: [KIB], platforms, mediaTypes },
      { signal: t.signal },
    );
    assert.equal(layout.root.kind, "index");
    assert.equal(layout.root.mediaType.includes("docker"), mediaTypes === "docker");
    const index = JSON.parse(await readFile(layout.blobPath(layout.root.digest), "utf8"));
    assert.deepEqual(
      index.manifests.map((each: { platform: unknown }) => each.platform),
      platforms,
    );
    assert.equal(layout.objects.length, 7);
    assert.equal(layout.objects.at(-1)?.digest, layout.root.digest);
  }
});

test("of an index with several platforms one can be read alone, when the others were never fetched", async (t) => {
  const platforms = [
    { os: "linux", architecture: "amd64" },
    { os: "linux", architecture: "arm64" },
  ];
  const made = await makeImage(
    folder(),
    { seed: "one", layerSizesBytes: [KIB], platforms },
    { signal: t.signal },
  );
  const options = { platform: { os: "linux", architecture: "arm64" }, signal: t.signal };
  const arm = await readImageLayout(made.directory, options);
  assert.deepEqual(
    arm.objects.map((object) => object.kind),
    ["config", "layer", "manifest", "index"],
  );
  for (const object of made.objects) {
    if (!arm.objects.some((each) => each.digest === object.digest)) await rm(made.blobPath(object.digest));
  }
  assert.deepEqual((await readImageLayout(made.directory, options)).objects, arm.objects);
  await assert.rejects(readImageLayout(made.directory, { signal: t.signal }), /is missing/);
});

test("an image with an index is read back, and a folder with two images needs a choice", async (t) => {
  const made = await makeImage(
    folder(),
    { seed: "i", layerSizesBytes: [], index: true, reference: "one" },
    { signal: t.signal },
  );
  assert.equal(made.root.kind, "index");
  const path = join(made.directory, "index.json");
  const index = JSON.parse(await readFile(path, "utf8"));
  const second = await makeImage(folder(), { seed: "j", layerSizesBytes: [] }, { signal: t.signal });
  await cp(join(second.directory, "blobs"), join(made.directory, "blobs"), { recursive: true });
  const { kind: _, sizeBytes, ...descriptor } = second.root;
  index.manifests.push({
    ...descriptor,
    size: sizeBytes,
    annotations: { "org.opencontainers.image.ref.name": "two" },
  });
  await writeFile(path, JSON.stringify(index));
  await assert.rejects(readImageLayout(made.directory, { signal: t.signal }), (error) =>
    hasCode(error, "IMAGE_LAYOUT_AMBIGUOUS"),
  );
  const chosen = await readImageLayout(made.directory, { reference: "two", signal: t.signal });
  assert.equal(chosen.root.digest, second.root.digest);
  await assert.rejects(
    readImageLayout(made.directory, { reference: "three", signal: t.signal }),
    /no image named three/,
  );
});

test("a broken layout is refused with the reason", async (t) => {
  const made = await makeImage(folder(), { seed: "broken", layerSizesBytes: [KIB] }, { signal: t.signal });
  const layer = made.objects.find((object) => object.kind === "layer");
  assert.ok(layer);
  await truncate(made.blobPath(layer.digest), 5);
  await assert.rejects(
    readImageLayout(made.directory, { signal: t.signal }),
    (error) => hasCode(error, "IMAGE_LAYOUT_INCOMPLETE") && /has 5 instead of/.test(error.message),
  );
  await rm(made.blobPath(layer.digest));
  await assert.rejects(readImageLayout(made.directory, { signal: t.signal }), /is missing/);
  await writeFile(made.blobPath(made.root.digest), "x".repeat(made.root.sizeBytes));
  await assert.rejects(
    readImageLayout(made.directory, { signal: t.signal }),
    /neither an index nor a manifest/,
  );
  for (const [content, reason] of [
    ["{", /neither an index nor a manifest/],
    ["[]", /neither an index nor a manifest/],
    ['{"manifests":[]}', /holds no image/],
    ['{"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}', /no valid digest/],
    ['{"manifests":[{"digest":"sha256:00","size":1}]}', /no valid digest/],
  ] as const) {
    await writeFile(join(made.directory, "index.json"), content);
    await assert.rejects(
      readImageLayout(made.directory, { signal: t.signal }),
      (error) => hasCode(error, "IMAGE_LAYOUT_INVALID") && reason.test(error.message),
    );
  }
  await assert.rejects(
    readImageLayout(join(root, "absent"), { signal: t.signal }),
    /index.json cannot be read/,
  );
});

test("making an image stops when the signal aborts", async () => {
  const directory = folder();
  const stop = new AbortController();
  const making = makeImage(
    directory,
    { seed: "long", layerSizesBytes: [512 * 1024 * KIB] },
    { signal: stop.signal },
  );
  stop.abort(new Error("enough"));
  await assert.rejects(making, /enough/);
  const left = await readdir(join(directory, "blobs", "sha256"));
  assert.equal(left.filter((name) => !name.startsWith(".")).length, 0);
});
