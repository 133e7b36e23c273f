// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { it } from "node:test";
import { sha256Digest } from "#oci";
import { createMemoryStore } from "./memory.ts";
import {
  describeContentStoreCompliance,
  describeWritableContentStoreCompliance,
  type WritableStoreUnderTest,
} from "./testing.ts";

const signal = AbortSignal.timeout(60_000);

async function openUnderTest(): Promise<WritableStoreUnderTest> {
  const store = createMemoryStore();
  return {
    store,
    add: (digest, bytes, origin) => store.put(digest, bytes, { signal, ...(origin && { origin }) }),
    tag: (name, digest) => store.tag(name, digest, { signal }),
    async remove(digest) {
      store.remove(digest);
      for (const image of (await store.inventory({ signal })).images) {
        if (image.digest === digest) store.untag(image.name);
      }
    },
    async [Symbol.asyncDispose]() {},
  };
}

describeContentStoreCompliance("memory store", openUnderTest);
describeWritableContentStoreCompliance("memory store", openUnderTest);

it("memory store refuses content beyond its bound and accepts it again after a removal", async () => {
  const store = createMemoryStore({ maxBytes: 10 });
  const first = sha256Digest("12345678");
  const second = sha256Digest("abcdefgh");
  await store.put(first, Buffer.from("12345678"), { signal });
  await assert.rejects(store.put(second, Buffer.from("abcdefgh"), { signal }), { code: "STORE_UNAVAILABLE" });
  store.remove(first);
  await store.put(second, Buffer.from("abcdefgh"), { signal });
  assert.equal((await store.stat(second, { signal }))?.sizeBytes, 8);
});

it("memory store is not changed by a later write to the buffer that was put", async () => {
  const store = createMemoryStore();
  const bytes = Buffer.from("as it was");
  const digest = sha256Digest(bytes);
  await store.put(digest, bytes, { signal });
  bytes.fill(0);
  const content = await store.open(digest, { signal });
  assert.ok(content?.kind === "memory");
  assert.equal(sha256Digest(content.bytes), digest);
});
