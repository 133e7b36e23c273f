// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { type Digest, digestHex, sha256Digest } from "#oci";
import type { WritableContentStore } from "./content-store.ts";
import { openOCILayoutStore } from "./oci-layout.ts";
import {
  describeContentStoreCompliance,
  describeWritableContentStoreCompliance,
  manifestOf,
  readContent,
  type WritableStoreUnderTest,
} from "./testing.ts";

const signal = AbortSignal.timeout(10 * 60_000);

async function openUnderTest(): Promise<WritableStoreUnderTest> {
  const folder = await temporaryFolder();
  const store = await openOCILayoutStore({ directory: folder.path }, { signal });
  return {
    store,
    add: (digest, bytes, origin) => store.put(digest, bytes, { signal, ...(origin && { origin }) }),
    tag: (name, digest) => store.tag(name, digest, { signal }),
    remove: (digest) => rm(blobPath(folder.path, digest)),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "layout-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

function blobPath(directory: string, digest: Digest): string {
  return join(directory, "blobs", "sha256", digestHex(digest));
}

describeContentStoreCompliance("OCI layout store", openUnderTest);
describeWritableContentStoreCompliance("OCI layout store", openUnderTest);

describe("OCI layout store", () => {
  async function putManifest(store: WritableContentStore, padding = ""): Promise<Digest> {
    const bytes = Buffer.from(manifestOf([]) + padding);
    await store.put(sha256Digest(bytes), bytes, { signal });
    return sha256Digest(bytes);
  }

  it("creates the folder and describes content as the image specification asks", async () => {
    await using folder = await temporaryFolder();
    const directory = join(folder.path, "deep", "layout");
    const store = await openOCILayoutStore({ directory }, { signal });
    const digest = await putManifest(store);
    await store.tag("registry.example.test/app:1", digest, { signal });
    assert.deepEqual(JSON.parse(await readFile(join(directory, "oci-layout"), "utf8")), {
      imageLayoutVersion: "1.0.0",
    });
    const index = JSON.parse(await readFile(join(directory, "index.json"), "utf8"));
    assert.deepEqual(index, {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [
        {
          mediaType: "application/vnd.oci.image.manifest.v1+json",
          digest,
          size: manifestOf([]).length,
          annotations: { "org.opencontainers.image.ref.name": "registry.example.test/app:1" },
        },
      ],
    });
  });

  it("reads what other tools wrote: plain tags, containerd's names, unnamed and foreign entries", async () => {
    await using folder = await temporaryFolder();
    const digest = sha256Digest("{}");
    const manifest = { mediaType: "application/vnd.oci.image.manifest.v1+json", digest, size: 2 };
    await writeFile(join(folder.path, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    await writeIndex(folder.path, [
      { ...manifest, annotations: { "org.opencontainers.image.ref.name": "1.2" } },
      {
        ...manifest,
        annotations: {
          "org.opencontainers.image.ref.name": "3",
          "io.containerd.image.name": "docker.io/library/app:3",
        },
      },
      { ...manifest, platform: { os: "linux" } },
      { ...manifest, annotations: [] },
      { ...manifest, digest: "sha256:short", annotations: { "org.opencontainers.image.ref.name": "bad" } },
      { ...manifest, annotations: { "org.opencontainers.image.ref.name": "x".repeat(5000) } },
      null,
      7,
    ]);
    const store = await openOCILayoutStore({ directory: folder.path }, { signal });
    assert.deepEqual((await store.inventory({ signal })).images, [
      { name: "1.2", digest },
      { name: "docker.io/library/app:3", digest },
    ]);
    await store.put(digest, Buffer.from("{}"), { signal });
    await store.tag("1.2", digest, { signal });
    const written = JSON.parse(await readFile(join(folder.path, "index.json"), "utf8")) as {
      manifests: unknown[];
    };
    assert.equal(written.manifests.length, 8, "entries of others are kept");
  });

  for (const [what, text] of [
    ["is no JSON", "{"],
    ["is no object", "[]"],
    ["has no manifests array", '{"manifests":{}}'],
    ["has too many entries", JSON.stringify({ manifests: Array.from({ length: 50_001 }, () => 0) })],
    ["is too large", `{"manifests":[]${" ".repeat(17 * 1024 * 1024)}}`],
  ] as const) {
    it(`serves by digest and says so when index.json ${what}`, async () => {
      await using folder = await temporaryFolder();
      const store = await openOCILayoutStore({ directory: folder.path }, { signal });
      const digest = await putManifest(store);
      await writeFile(join(folder.path, "index.json"), text);
      assert.ok(await store.stat(digest, { signal }));
      await assert.rejects(store.inventory({ signal }), { code: "STORE_LAYOUT_INVALID" });
      await assert.rejects(store.resolve("registry.example.test/app:1", { signal }), {
        code: "STORE_LAYOUT_INVALID",
      });
      await assert.rejects(store.tag("registry.example.test/app:1", digest, { signal }), {
        code: "STORE_LAYOUT_INVALID",
      });
      assert.equal((await readFile(join(folder.path, "index.json"), "utf8")).length, text.length);
    });
  }

  it("refuses a folder that holds something else, another layout version and a file", async () => {
    await using folder = await temporaryFolder();
    const foreign = join(folder.path, "foreign");
    await mkdir(foreign);
    await writeFile(join(foreign, "thesis.txt"), "do not touch");
    await assert.rejects(openOCILayoutStore({ directory: foreign }, { signal }), {
      code: "STORE_LAYOUT_INVALID",
    });
    assert.deepEqual(await readdir(foreign), ["thesis.txt"]);
    for (const marker of ['{"imageLayoutVersion":"2.0.0"}', "null", "not json"]) {
      const other = await mkdtemp(join(folder.path, "other-"));
      await writeFile(join(other, "oci-layout"), marker);
      await assert.rejects(openOCILayoutStore({ directory: other }, { signal }), {
        code: "STORE_LAYOUT_INVALID",
      });
    }
    await assert.rejects(openOCILayoutStore({ directory: join(foreign, "thesis.txt") }, { signal }), {
      code: "STORE_UNAVAILABLE",
    });
  });

  it("takes neither links, folders nor temporary files for content", async () => {
    await using folder = await temporaryFolder();
    const store = await openOCILayoutStore({ directory: folder.path }, { signal });
    const linked = sha256Digest("linked");
    const nested = sha256Digest("nested");
    await symlink("/etc/hostname", blobPath(folder.path, linked));
    await mkdir(blobPath(folder.path, nested));
    await writeFile(join(folder.path, "blobs", "sha256", "oci-put-blob123"), "half");
    for (const digest of [linked, nested]) {
      assert.equal(await store.open(digest, { signal }), undefined);
      assert.equal(await store.stat(digest, { signal }), undefined);
    }
    assert.deepEqual((await store.inventory({ signal })).contents, []);
  });

  it("leaves no temporary file after a mismatch and removes those of processes that died", async () => {
    await using folder = await temporaryFolder();
    const store = await openOCILayoutStore({ directory: folder.path }, { signal });
    await assert.rejects(store.put(sha256Digest("a"), Buffer.from("b"), { signal }));
    assert.deepEqual(await readdir(join(folder.path, "ingest")), []);
    await writeFile(join(folder.path, "ingest", "old"), "half");
    await writeFile(join(folder.path, "ingest", "young"), "half");
    await utimes(join(folder.path, "ingest", "old"), 1, 1);
    await openOCILayoutStore({ directory: folder.path }, { signal });
    assert.deepEqual(await readdir(join(folder.path, "ingest")), ["young"]);
  });

  it("replaces a damaged blob by a good one", async () => {
    await using folder = await temporaryFolder();
    const store = await openOCILayoutStore({ directory: folder.path }, { signal });
    const digest = sha256Digest("good bytes");
    await writeFile(blobPath(folder.path, digest), "good");
    await store.put(digest, Buffer.from("good bytes"), { signal });
    assert.equal(sha256Digest(await readContent(store, digest)), digest);
  });

  it("keeps origins over a restart and ignores damaged lines", async () => {
    await using folder = await temporaryFolder();
    const first = await openOCILayoutStore({ directory: folder.path }, { signal });
    const origin = { registry: "registry.example.test:5000", repository: "a/b" };
    const digest = sha256Digest("layer");
    await first.put(digest, Buffer.from("layer"), { signal, origin });
    const path = join(folder.path, "spegel-origins");
    const bad = [
      `${digest} no-registry`,
      `${digest} ../../etc`,
      "garbage",
      `${digest} ${"r".repeat(9000)}/x`,
      "",
    ];
    await writeFile(
      path,
      `${bad.join("\n")}\n${await readFile(path, "utf8")}${digest} registry.example.test/half`,
    );
    const second = await openOCILayoutStore({ directory: folder.path }, { signal });
    assert.deepEqual((await second.inventory({ signal })).contents, [{ digest, origins: [origin] }]);
  });

  it("notices content, names and removals of other processes", async () => {
    await using folder = await temporaryFolder();
    const mine = await openOCILayoutStore({ directory: folder.path }, { signal });
    const theirs = await openOCILayoutStore({ directory: folder.path }, { signal });
    const stop = new AbortController();
    const hints = mine.watch({ signal: stop.signal })[Symbol.asyncIterator]();
    let next = hints.next();
    const digest = await putManifest(theirs);
    assert.deepEqual((await next).value, { kind: "changed" });
    next = hints.next();
    await theirs.tag("registry.example.test/app:1", digest, { signal });
    assert.deepEqual((await next).value, { kind: "changed" });
    assert.equal(await mine.resolve("registry.example.test/app:1", { signal }), digest);
    stop.abort();
    while (!(await hints.next()).done);
  });

  it("loses no name when several processes tag at once", async () => {
    await using folder = await temporaryFolder();
    const store = await openOCILayoutStore({ directory: folder.path }, { signal });
    const digest = await putManifest(store);
    const program = `
      const { openOCILayoutStore } = await import(${JSON.stringify(import.meta.resolve("./oci-layout.ts"))});
      const signal = AbortSignal.timeout(60000);
      const store = await openOCILayoutStore({ directory: process.argv[1] }, { signal });
      for (let i = 0; i < 8; i++) await store.tag("registry.example.test/p" + process.argv[2] + ":" + i, process.argv[3], { signal });`;
    const run = promisify(execFile);
    await Promise.all(
      ["1", "2", "3"].map((each) =>
        run(process.execPath, ["--input-type=module", "-e", program, folder.path, each, digest]),
      ),
    );
    assert.equal((await store.inventory({ signal })).images.length, 24);
    assert.deepEqual((await readdir(folder.path)).toSorted(), [
      "blobs",
      "index.json",
      "ingest",
      "oci-layout",
    ]);
  });

  it("goes on after a process died with the lock", async () => {
    await using folder = await temporaryFolder();
    const store = await openOCILayoutStore({ directory: folder.path }, { signal });
    const digest = await putManifest(store);
    const lock = join(folder.path, "index.json.lock");
    await writeFile(lock, "");
    await utimes(lock, 1, 1);
    await store.tag("registry.example.test/app:1", digest, { signal });
    assert.equal(await store.resolve("registry.example.test/app:1", { signal }), digest);
  });

  it("stops waiting for the lock when the signal aborts", async () => {
    await using folder = await temporaryFolder();
    const store = await openOCILayoutStore({ directory: folder.path }, { signal });
    const digest = await putManifest(store);
    await writeFile(join(folder.path, "index.json.lock"), "");
    const stop = new AbortController();
    const tagging = store.tag("registry.example.test/app:1", digest, { signal: stop.signal });
    setImmediate(() => stop.abort());
    await assert.rejects(tagging, { name: "AbortError" });
  });

  async function writeIndex(directory: string, manifests: readonly unknown[]): Promise<void> {
    await writeFile(join(directory, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
  }
});
