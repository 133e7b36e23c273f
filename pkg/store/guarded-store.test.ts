// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type Digest, digestHex, sha256Digest } from "#oci";
import { createGuardedStore } from "./guarded-store.ts";
import { createMemoryStore } from "./memory.ts";
import { openOCILayoutStore } from "./oci-layout.ts";
import { describeContentStoreCompliance } from "./testing.ts";

const signal = AbortSignal.timeout(60_000);
const NAME = "registry.example.test/lib/app:1";

async function openLayout() {
  const directory = await mkdtemp(join(tmpdir(), "guarded-"));
  const inner = await openOCILayoutStore({ directory }, { signal });
  const found: Digest[] = [];
  const store = createGuardedStore(inner, { onCorrupt: (digest) => found.push(digest) });
  const bytes = randomBytes(300_000);
  const digest = sha256Digest(bytes);
  await inner.put(digest, bytes, { signal });
  await inner.tag(NAME, digest, { signal });
  const path = join(directory, "blobs", "sha256", digestHex(digest));
  await chmod(path, 0o644);
  return {
    store,
    found,
    digest,
    bytes,
    path,
    async serve(): Promise<boolean> {
      const content = await store.open(digest, { signal });
      await content?.[Symbol.asyncDispose]();
      await store.checked();
      return content !== undefined;
    },
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    },
  };
}

describeContentStoreCompliance("guarded memory store", async () => {
  const inner = createMemoryStore();
  const store = createGuardedStore(inner, { onCorrupt: () => assert.fail("nothing is wrong") });
  return {
    store,
    add: (digest, bytes, origin) =>
      inner.put(digest, bytes, { signal, ...(origin === undefined ? {} : { origin }) }),
    tag: (name, digest) => inner.tag(name, digest, { signal }),
    remove: async (digest) => inner.remove(digest),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
});

describe("createGuardedStore", () => {
  it("gives a rotten blob once at most, then neither serves nor lists it, and says so once", async () => {
    for (const spoil of [
      async (path: string) => {
        const bytes = await readFile(path);
        bytes[1000] = (bytes[1000] ?? 0) ^ 1;
        await writeFile(path, bytes);
      },
      (path: string) => truncate(path, 1000),
    ]) {
      await using layout = await openLayout();
      await spoil(layout.path);
      await layout.serve();
      assert.equal(await layout.serve(), false);
      assert.deepEqual(layout.found, [layout.digest]);
      assert.equal(layout.store.corruptCount(), 1);
      assert.equal(await layout.store.stat(layout.digest, { signal }), undefined);
      assert.equal(await layout.store.resolve(NAME, { signal }), undefined);
      assert.deepEqual(await layout.store.inventory({ signal }), { images: [], contents: [] });
    }
  });

  it("trusts content again when it was replaced", async () => {
    await using layout = await openLayout();
    await writeFile(layout.path, randomBytes(300_000));
    await layout.serve();
    assert.equal(await layout.serve(), false);
    await writeFile(layout.path, layout.bytes);
    assert.equal(await layout.serve(), true);
    assert.equal(layout.store.corruptCount(), 0);
    assert.equal((await layout.store.inventory({ signal })).contents.length, 1);
  });

  it("tells its watchers when content is found wrong", async () => {
    await using layout = await openLayout();
    const stop = new AbortController();
    const changes = layout.store.watch({ signal: stop.signal })[Symbol.asyncIterator]();
    const next = changes.next();
    await writeFile(layout.path, randomBytes(300_000));
    await layout.serve();
    assert.equal((await next).value?.kind, "changed");
    stop.abort();
    await changes.return?.();
  });

  it("serves good content unharmed", async () => {
    await using layout = await openLayout();
    for (let round = 0; round < 3; round++) assert.equal(await layout.serve(), true);
    assert.deepEqual(layout.found, []);
  });
});
