// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, readSync } from "node:fs";
import { describe, it } from "node:test";
import { type Digest, MEDIA_TYPE_OCTET_STREAM, sha256Digest } from "#oci";
import type {
  Content,
  ContentOrigin,
  ContentStore,
  StoreChange,
  WritableContentStore,
} from "./content-store.ts";
import { StoreError } from "./errors.ts";

/** An empty store and the ways to fill it from outside, as a container runtime would. */
export interface StoreUnderTest extends AsyncDisposable {
  readonly store: ContentStore;
  /** Adds content that hashes to `digest`. */
  add(digest: Digest, bytes: Uint8Array, origin?: ContentOrigin): Promise<void>;
  /** Points a name at content that was added. */
  tag(name: string, digest: Digest): Promise<void>;
  /** Deletes content and the names that point at it. */
  remove(digest: Digest): Promise<void>;
}

/** An empty store that is filled through its own interface. */
export interface WritableStoreUnderTest extends StoreUnderTest {
  readonly store: WritableContentStore;
}

const LIMIT_MS = 30_000;
const BUSYBOX = "registry.example.test/library/busybox";

/** What every ContentStore must do. `open` gives a fresh, empty store. */
export function describeContentStoreCompliance(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`${name} complies with ContentStore`, { concurrency: false }, () => {
    const signal = AbortSignal.timeout(10 * 60_000);

    it("answers undefined for a digest and a name it does not hold", async () => {
      await using under = await open();
      const digest = sha256Digest(randomBytes(8));
      assert.equal(await under.store.stat(digest, { signal }), undefined);
      assert.equal(await under.store.open(digest, { signal }), undefined);
      assert.equal(await under.store.resolve(`${BUSYBOX}:absent`, { signal }), undefined);
      assert.deepEqual(await under.store.inventory({ signal }), { images: [], contents: [] });
    });

    it("gives back the bytes that were added, under their digest and size", async () => {
      await using under = await open();
      for (const sizeBytes of [1, 4095, 300_000]) {
        const { digest, bytes } = await addBytes(under, randomBytes(sizeBytes));
        assert.equal((await under.store.stat(digest, { signal }))?.sizeBytes, sizeBytes);
        assert.deepEqual(await readContent(under.store, digest), bytes);
        assert.equal(sha256Digest(await readContent(under.store, digest)), digest);
      }
    });

    it("opens content for reading from any offset, many times at once", async () => {
      await using under = await open();
      const { digest, bytes } = await addBytes(under, randomBytes(100_000));
      await using stack = new AsyncDisposableStack();
      for (const start of [0, 1, 65_535, 99_999]) {
        const content = await under.store.open(digest, { signal });
        assert.ok(content);
        stack.use(content);
        assert.deepEqual(readRange(content, start, content.sizeBytes - start), bytes.subarray(start));
        assert.deepEqual(readRange(content, 0, 10), bytes.subarray(0, 10));
      }
    });

    it("tells the media type from the bytes and serves unknown JSON as octet-stream", async () => {
      await using under = await open();
      const cases: readonly [string, string][] = [
        [manifestOf([]), "application/vnd.oci.image.manifest.v1+json"],
        [
          '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
          OCI_INDEX,
        ],
        ['{"schemaVersion":2,"manifests":[]}', OCI_INDEX],
        ["{}", "application/vnd.oci.empty.v1+json"],
        ['{"some":"model card"}', MEDIA_TYPE_OCTET_STREAM],
        ['["a","b"]', MEDIA_TYPE_OCTET_STREAM],
        ['"text"', MEDIA_TYPE_OCTET_STREAM],
        ["{not json at all", MEDIA_TYPE_OCTET_STREAM],
        [`${" ".repeat(9000)}{"schemaVersion":2,"manifests":[]}`, OCI_INDEX],
      ];
      for (const [text, mediaType] of cases) {
        const { digest, bytes } = await addBytes(under, Buffer.from(text));
        assert.equal((await under.store.stat(digest, { signal }))?.mediaType, mediaType, text.slice(0, 60));
        assert.deepEqual(await readContent(under.store, digest), bytes);
      }
    });

    it("resolves a name to the digest it points at, also after it moved", async () => {
      await using under = await open();
      const first = await addBytes(under, Buffer.from(manifestOf([])));
      const second = await addBytes(under, Buffer.from(`${manifestOf([])} `));
      await under.tag(`${BUSYBOX}:1`, first.digest);
      assert.equal(await under.store.resolve(`${BUSYBOX}:1`, { signal }), first.digest);
      await under.tag(`${BUSYBOX}:1`, second.digest);
      assert.equal(await under.store.resolve(`${BUSYBOX}:1`, { signal }), second.digest);
      const { images } = await under.store.inventory({ signal });
      assert.deepEqual(images, [{ name: `${BUSYBOX}:1`, digest: second.digest }]);
    });

    it("lists every content of an image once, with where it came from", async () => {
      await using under = await open();
      const origin = { registry: "registry.example.test", repository: "library/busybox" };
      const other = { registry: "registry.example.test", repository: "library/alpine" };
      const layer = await addBytes(under, randomBytes(100), origin);
      await under.add(layer.digest, layer.bytes, other);
      const first = await addBytes(under, Buffer.from(manifestOf([layer])), origin);
      const second = await addBytes(under, Buffer.from(`${manifestOf([layer])}\n`), other);
      await under.tag(`${BUSYBOX}:1`, first.digest);
      await under.tag("registry.example.test/library/alpine:1", second.digest);
      const { images, contents } = await under.store.inventory({ signal });
      assert.deepEqual(images.map((each) => each.name).toSorted(), [
        "registry.example.test/library/alpine:1",
        `${BUSYBOX}:1`,
      ]);
      assert.deepEqual(
        contents.map((each) => each.digest).toSorted(),
        [layer.digest, first.digest, second.digest].toSorted(),
      );
      const origins = contents.find((each) => each.digest === layer.digest)?.origins ?? [];
      assert.deepEqual(origins.map((each) => each.repository).toSorted(), [
        "library/alpine",
        "library/busybox",
      ]);
    });

    it("no longer serves what was removed", async () => {
      await using under = await open();
      const { digest } = await addBytes(under, Buffer.from(manifestOf([])));
      await under.tag(`${BUSYBOX}:gone`, digest);
      assert.ok(await under.store.stat(digest, { signal }));
      await under.remove(digest);
      await eventually(
        async () => (await under.store.stat(digest, { signal })) === undefined,
        "removed content is still there",
      );
      assert.equal(await under.store.open(digest, { signal }), undefined);
      assert.deepEqual((await under.store.inventory({ signal })).contents, []);
    });

    it("keeps open content readable while it is removed", async () => {
      await using under = await open();
      const { digest, bytes } = await addBytes(under, randomBytes(50_000));
      await using content = await under.store.open(digest, { signal });
      assert.ok(content);
      await under.remove(digest);
      assert.deepEqual(readRange(content, 0, bytes.length), bytes);
    });

    it("hints at new names and at names that go away", async () => {
      await using under = await open();
      const stop = new AbortController();
      const watched = watchUntil(under.store, stop.signal);
      const { digest } = await addBytes(under, Buffer.from(manifestOf([])));
      watched.forget();
      await under.tag(`${BUSYBOX}:watched`, digest);
      await watched.see((change) => change.kind === "changed");
      watched.forget();
      await under.remove(digest);
      await watched.see((change) => change.kind === "changed");
      stop.abort();
      await watched.ended;
    });

    it("ends a watch quietly when the signal aborts, also before it began", async () => {
      await using under = await open();
      const stop = new AbortController();
      const watched = watchUntil(under.store, stop.signal);
      stop.abort(new Error("enough"));
      await watched.ended;
      await watchUntil(under.store, AbortSignal.abort()).ended;
    });

    it("rejects with the reason of a signal that has already aborted", async () => {
      await using under = await open();
      const { digest } = await addBytes(under, randomBytes(10));
      const aborted = AbortSignal.abort(new Error("no longer wanted"));
      await assert.rejects(under.store.stat(digest, { signal: aborted }), /no longer wanted/);
      await assert.rejects(under.store.open(digest, { signal: aborted }), /no longer wanted/);
      await assert.rejects(under.store.resolve(BUSYBOX, { signal: aborted }), /no longer wanted/);
      await assert.rejects(under.store.inventory({ signal: aborted }), /no longer wanted/);
    });

    it("leaves no descriptor open after many opens and stats", async () => {
      await using under = await open();
      const { digest } = await addBytes(under, randomBytes(1000));
      for (let i = 0; i < 8; i++) await (await under.store.open(digest, { signal }))?.[Symbol.asyncDispose]();
      const before = openDescriptors();
      await Promise.all(
        Array.from({ length: 200 }, async () => {
          const content = await under.store.open(digest, { signal });
          assert.ok(await under.store.stat(digest, { signal }));
          await content?.[Symbol.asyncDispose]();
          await content?.[Symbol.asyncDispose]();
        }),
      );
      assert.ok(openDescriptors() <= before + 4, `${before} descriptors before, ${openDescriptors()} after`);
    });
  });
}

/** What every WritableContentStore must do, beside what every ContentStore must do. */
export function describeWritableContentStoreCompliance(
  name: string,
  open: () => Promise<WritableStoreUnderTest>,
): void {
  describe(`${name} complies with WritableContentStore`, () => {
    const signal = AbortSignal.timeout(10 * 60_000);

    it("keeps nothing of bytes that do not hash to their digest", async () => {
      await using under = await open();
      const { store } = under;
      const digest = sha256Digest("what was promised");
      const rejection = (error: unknown): boolean =>
        error instanceof StoreError && error.code === "STORE_DIGEST_MISMATCH";
      await assert.rejects(store.put(digest, Buffer.from("what came"), { signal }), rejection);
      await assert.rejects(store.put(digest, chunksOf("what ", "came"), { signal }), rejection);
      assert.equal(await store.stat(digest, { signal }), undefined);
      assert.deepEqual(await store.inventory({ signal }), { images: [], contents: [] });
    });

    it("keeps nothing when the bytes end with an error or the signal aborts", async () => {
      await using under = await open();
      const { store } = under;
      const bytes = Buffer.from("first, second");
      const digest = sha256Digest(bytes);
      async function* broken(): AsyncGenerator<Uint8Array> {
        yield bytes.subarray(0, 5);
        throw new Error("peer went away");
      }
      await assert.rejects(store.put(digest, broken(), { signal }), /peer went away/);
      const stop = new AbortController();
      async function* stopped(): AsyncGenerator<Uint8Array> {
        yield bytes.subarray(0, 5);
        stop.abort(new Error("no longer wanted"));
        yield bytes.subarray(5);
      }
      await assert.rejects(store.put(digest, stopped(), { signal: stop.signal }), /no longer wanted/);
      assert.deepEqual(await store.inventory({ signal }), { images: [], contents: [] });
    });

    it("names content that was put in a hint, with its origin", async () => {
      await using under = await open();
      const stop = new AbortController();
      const watched = watchUntil(under.store, stop.signal);
      const origin = { registry: "registry.example.test", repository: "library/busybox" };
      const { digest } = await addBytes(under, randomBytes(100), origin);
      await watched.see((change) => change.kind === "added" && change.content.digest === digest);
      const added = watched.seen().find((change) => change.kind === "added");
      assert.deepEqual(added, { kind: "added", content: { digest, origins: [origin] } });
      stop.abort();
      await watched.ended;
    });

    it("accepts the same content twice, also at the same time", async () => {
      await using under = await open();
      const { store } = under;
      const bytes = randomBytes(200_000);
      const digest = sha256Digest(bytes);
      await Promise.all([store.put(digest, bytes, { signal }), store.put(digest, bytes, { signal })]);
      await store.put(digest, bytes, { signal });
      assert.deepEqual(await readContent(store, digest), bytes);
      assert.equal((await store.inventory({ signal })).contents.length, 1);
    });

    it("refuses to name content that is absent", async () => {
      await using under = await open();
      const { store } = under;
      await assert.rejects(
        store.tag(`${BUSYBOX}:1`, sha256Digest("absent"), { signal }),
        (error) => error instanceof StoreError && error.code === "STORE_CONTENT_MISSING",
      );
      assert.equal(await store.resolve(`${BUSYBOX}:1`, { signal }), undefined);
    });
  });
}

const OCI_INDEX = "application/vnd.oci.image.index.v1+json";

/** An OCI image manifest without config over these layers, as JSON text. */
export function manifestOf(
  layers: readonly { readonly digest: Digest; readonly bytes: Uint8Array }[],
): string {
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType: "application/vnd.oci.empty.v1+json", digest: sha256Digest("{}"), size: 2 },
    layers: layers.map(({ digest, bytes }) => ({
      mediaType: "application/vnd.oci.image.layer.v1.tar",
      digest,
      size: bytes.length,
    })),
  });
}

async function addBytes(
  under: StoreUnderTest,
  bytes: Uint8Array,
  origin?: ContentOrigin,
): Promise<{ readonly digest: Digest; readonly bytes: Uint8Array }> {
  const digest = sha256Digest(bytes);
  await under.add(digest, bytes, origin);
  return { digest, bytes };
}

async function* chunksOf(...texts: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text);
}

/** All bytes of content; fails when it is absent. */
export async function readContent(store: ContentStore, digest: Digest): Promise<Uint8Array> {
  await using content = await store.open(digest, { signal: AbortSignal.timeout(LIMIT_MS) });
  assert.ok(content, `${digest} is absent`);
  return readRange(content, 0, content.sizeBytes);
}

/** Bytes of open content, read the way a server does: by descriptor and position, or from memory. */
export function readRange(content: Content, start: number, lengthBytes: number): Uint8Array {
  if (content.kind === "memory") return Buffer.from(content.bytes.subarray(start, start + lengthBytes));
  const bytes = Buffer.alloc(lengthBytes);
  let filled = 0;
  while (filled < lengthBytes) {
    const count: number = readSync(content.fd, bytes, filled, lengthBytes - filled, start + filled);
    assert.ok(count > 0, "the file is shorter than its size says");
    filled += count;
  }
  return bytes;
}

interface Watched {
  see(accept: (change: StoreChange) => boolean): Promise<void>;
  forget(): void;
  seen(): readonly StoreChange[];
  readonly ended: Promise<void>;
}

function watchUntil(store: ContentStore, signal: AbortSignal): Watched {
  let seen: StoreChange[] = [];
  const ended = (async () => {
    for await (const change of store.watch({ signal })) seen.push(change);
  })();
  return {
    ended,
    seen: () => seen,
    forget: () => {
      seen = [];
    },
    see: (accept) => eventually(() => seen.some(accept), "no such hint arrived"),
  };
}

async function eventually(holds: () => boolean | Promise<boolean>, complaint: string): Promise<void> {
  const deadline = performance.now() + LIMIT_MS;
  while (!(await holds())) {
    if (performance.now() > deadline) assert.fail(complaint);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}
