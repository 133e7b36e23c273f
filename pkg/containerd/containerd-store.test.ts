// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ContentCreate } from "#api/containerd";
import { createLogger, silentLogger } from "#log";
import { type Digest, digestHex, sha256Digest } from "#oci";
import type { StoreChange } from "#store";
import { describeContentStoreCompliance, manifestOf, readContent, type StoreUnderTest } from "#store/testing";
import {
  type ContainerdStore,
  type ContainerdStoreOptions,
  openContainerdStore,
} from "./containerd-store.ts";
import {
  type ContainerdUnderTest,
  createContainerdDriver,
  realContainerdMissing,
  startFakeContainerd,
  startRealContainerd,
} from "./testing.ts";

const signal = AbortSignal.timeout(10 * 60_000);
const NAME = "registry.example.test/library/busybox:1";
const ROOT_LABEL = { "containerd.io/gc.root": "2026-01-01T00:00:00Z" };
const ORIGIN = { registry: "registry.example.test", repository: "library/busybox" };

function openStore(
  under: ContainerdUnderTest,
  options: Partial<ContainerdStoreOptions> = {},
): ContainerdStore {
  const { socketPath, contentPath } = under;
  return openContainerdStore(
    { log: silentLogger },
    { socketPath, contentPath, namespaces: ["k8s.io"], ...options },
  );
}

async function eventually(holds: () => boolean | Promise<boolean>, complaint: string): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!(await holds())) {
    if (performance.now() > deadline) assert.fail(complaint);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Collects hints from now on. */
function collectHints(store: ContainerdStore): AsyncDisposable & {
  readonly seen: StoreChange[];
  see(accept: (change: StoreChange) => boolean): Promise<void>;
} {
  const stop = new AbortController();
  const seen: StoreChange[] = [];
  const ended = (async () => {
    for await (const change of store.watch({ signal: stop.signal })) seen.push(change);
  })();
  return {
    seen,
    see: (accept) => eventually(() => seen.some(accept), `not among the hints ${JSON.stringify(seen)}`),
    async [Symbol.asyncDispose]() {
      stop.abort();
      await ended;
    },
  };
}

const isChanged = (change: StoreChange): boolean => change.kind === "changed";

async function openUnderTest(start: () => Promise<ContainerdUnderTest>): Promise<StoreUnderTest> {
  await using stack = new AsyncDisposableStack();
  const under = stack.use(await start());
  const driver = stack.use(createContainerdDriver(under.socketPath));
  const store = stack.use(openStore(under));
  await eventually(() => store.connected(), "the store does not connect");
  const owned = stack.move();
  return {
    store,
    async add(digest, bytes, origin) {
      await driver.addContent(bytes, { digest, ...(origin && { origin }) });
    },
    tag: (name, digest) => driver.setImage(name, digest),
    async remove(digest) {
      for (const name of await driver.imageNames(digest)) await driver.removeImage(name);
      await driver.removeContent(digest);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

for (const version of ["1.6.20", "1.7.24", "2.1.9"] as const) {
  describeContentStoreCompliance(`containerd store over a fake ${version}`, () =>
    openUnderTest(() => startFakeContainerd({ version })),
  );
}

const missing = realContainerdMissing();
if (missing === undefined) {
  describeContentStoreCompliance("containerd store over the real containerd", () =>
    openUnderTest(startRealContainerd),
  );
}
describeFaults("a fake 2.x", startFakeContainerd);
if (missing === undefined) {
  describeFaults("the real containerd", startRealContainerd);
} else {
  it("containerd store works with the real containerd", {
    skip: process.env["CI"] !== "true" && missing,
  }, () => {
    assert.fail(missing);
  });
}

/** What must hold over any containerd when it goes away, hangs, or shares the machine. */
function describeFaults(name: string, start: () => Promise<ContainerdUnderTest>): void {
  describe(`containerd store over ${name}`, () => {
    it("finds containerd again after it was killed, says so, and serves as before", async () => {
      await using under = await start();
      await using store = openStore(under);
      using driver = createContainerdDriver(under.socketPath);
      await eventually(() => store.connected(), "the store does not connect");
      const digest = await driver.addContent(randomBytes(1000));
      await using hints = collectHints(store);
      await under.kill();
      await eventually(() => !store.connected(), "the store does not notice");
      await assert.rejects(store.resolve(NAME, { signal }), { code: "STORE_UNAVAILABLE" });
      await assert.rejects(store.inventory({ signal }), { code: "STORE_UNAVAILABLE" });
      hints.seen.length = 0;
      await under.restart();
      await hints.see(isChanged);
      assert.ok(store.connected());
      assert.ok(await store.stat(digest, { signal }));
      await driver.setImage(NAME, digest);
      hints.seen.length = 0;
      await driver.removeImage(NAME);
      await hints.see(isChanged);
    });

    it("opens without containerd and connects when it comes", async () => {
      await using under = await start();
      await under.kill();
      await rm(under.socketPath, { force: true });
      await using store = openStore(under);
      assert.equal(store.connected(), false);
      await assert.rejects(store.stat(sha256Digest("x"), { signal }), { code: "STORE_UNAVAILABLE" });
      await using hints = collectHints(store);
      await under.restart();
      await hints.see(isChanged);
      assert.ok(store.connected());
    });

    it("ends every call by its deadline while containerd hangs, and goes on when it no longer does", async () => {
      await using under = await start();
      await using store = openStore(under, { callTimeoutMs: 100, listTimeoutMs: 150, probeIntervalMs: 20 });
      using driver = createContainerdDriver(under.socketPath);
      await eventually(() => store.connected(), "the store does not connect");
      const digest = await driver.addContent(randomBytes(1000));
      await driver.setImage(NAME, digest);
      under.pause();
      try {
        const unavailable = { code: "STORE_UNAVAILABLE" };
        await Promise.all([
          assert.rejects(store.stat(digest, { signal }), unavailable),
          assert.rejects(store.open(digest, { signal }), unavailable),
          assert.rejects(store.resolve(NAME, { signal }), unavailable),
          assert.rejects(store.inventory({ signal }), unavailable),
          ...Array.from({ length: 100 }, () => assert.rejects(store.open(digest, { signal }), unavailable)),
        ]);
        await eventually(() => !store.connected(), "the store does not notice that containerd hangs");
        const stop = new AbortController();
        const asked = store.resolve(NAME, { signal: stop.signal });
        stop.abort(new Error("no longer wanted"));
        await assert.rejects(asked, /no longer wanted/);
      } finally {
        under.resume();
      }
      await eventually(() => store.connected(), "the store does not notice that containerd answers");
      assert.equal(await store.resolve(NAME, { signal }), digest);
    });

    it("neither serves nor lists content and names of other namespaces, nor tells of them", async () => {
      await using under = await start();
      await using store = openStore(under);
      using foreign = createContainerdDriver(under.socketPath, "buildkit");
      using own = createContainerdDriver(under.socketPath);
      await eventually(() => store.connected(), "the store does not connect");
      await using hints = collectHints(store);
      const secret = await foreign.addContent(Buffer.from(manifestOf([])));
      await foreign.setImage(NAME, secret);
      await foreign.removeImage(NAME);
      await foreign.setImage(NAME, secret);
      assert.equal(await store.stat(secret, { signal }), undefined);
      assert.equal(await store.open(secret, { signal }), undefined);
      assert.equal(await store.resolve(NAME, { signal }), undefined);
      assert.deepEqual(await store.inventory({ signal }), { images: [], contents: [] });
      const visible = await own.addContent(Buffer.from("visible"), { origin: ORIGIN });
      await own.setImage("registry.example.test/own:1", visible);
      await hints.see(isChanged);
      assert.ok(hints.seen.every((each) => each.kind === "changed" || each.content.digest === visible));
    });

    it("watches several namespaces and lists shared content once", async () => {
      await using under = await start();
      await using store = openStore(under, { namespaces: ["k8s.io", "moby"] });
      using first = createContainerdDriver(under.socketPath, "k8s.io");
      using second = createContainerdDriver(under.socketPath, "moby");
      await eventually(() => store.connected(), "the store does not connect");
      const shared = await first.addContent(Buffer.from("shared"), { origin: ORIGIN });
      await second.addContent(Buffer.from("shared"), { origin: { ...ORIGIN, repository: "other" } });
      const only = await second.addContent(Buffer.from("only here"));
      await second.setImage("registry.example.test/moby:1", only);
      assert.equal(await store.resolve("registry.example.test/moby:1", { signal }), only);
      const { contents } = await store.inventory({ signal });
      assert.deepEqual(contents.map((each) => each.digest).toSorted(), [shared, only].toSorted());
      assert.deepEqual(contents.find((each) => each.digest === shared)?.origins, [
        ORIGIN,
        { ...ORIGIN, repository: "other" },
      ]);
    });

    it("gives content without a source label the origin of the images that contain it", async () => {
      await using under = await start();
      await using store = openStore(under);
      using driver = createContainerdDriver(under.socketPath);
      const layer = Buffer.from("a layer that was imported");
      const layerDigest = await driver.addContent(layer);
      const manifest = await driver.addContent(
        Buffer.from(manifestOf([{ digest: layerDigest, bytes: layer }])),
      );
      const absent = { digest: sha256Digest("other platform"), bytes: Buffer.from("other platform") };
      const index = await driver.addContent(indexOf([manifest, absent.digest]));
      const loose = await driver.addContent(Buffer.from("belongs to nothing"));
      await driver.setImage(NAME, index, "application/vnd.oci.image.index.v1+json");
      await driver.setImage("registry.example.test/second:1", manifest);
      const { contents } = await store.inventory({ signal });
      const second = { registry: "registry.example.test", repository: "second" };
      const origins = new Map(contents.map((each) => [each.digest, each.origins]));
      assert.deepEqual(origins.get(index), [ORIGIN]);
      assert.deepEqual(origins.get(manifest), [ORIGIN, second]);
      assert.deepEqual(origins.get(layerDigest), [ORIGIN, second]);
      assert.deepEqual(origins.get(loose), []);
      assert.equal(origins.size, 4);
    });

    it("skips names that are no references and CRI's digests, and goes on", async () => {
      await using under = await start();
      const lines: string[] = [];
      const log = createLogger({ level: "INFO", sink: { write: (line) => lines.push(line) } });
      await using store = openContainerdStore({ log }, { ...under, namespaces: ["k8s.io"] });
      using driver = createContainerdDriver(under.socketPath);
      const digest = await driver.addContent(Buffer.from(manifestOf([])));
      for (const name of [
        "busybox",
        "localhost",
        "import-2026@x",
        digest,
        NAME,
        `${NAME.slice(0, -2)}@${digest}`,
      ]) {
        await driver.setImage(name, digest);
      }
      for (let i = 0; i < 2; i++) {
        const { images } = await store.inventory({ signal });
        assert.deepEqual(images.map((each) => each.name).toSorted(), [
          NAME,
          `${NAME.slice(0, -2)}@${digest}`,
        ]);
      }
      assert.equal(store.skippedNames(), 3);
      assert.equal(lines.filter((line) => line.includes("no reference")).length, 3);
    });

    it("sees which images containerd threw the layers of away, and says once what to set", async () => {
      await using under = await start();
      const lines: string[] = [];
      const log = createLogger({ level: "INFO", sink: { write: (line) => lines.push(line) } });
      await using store = openContainerdStore({ log }, { ...under, namespaces: ["k8s.io"] });
      using driver = createContainerdDriver(under.socketPath);
      await eventually(() => store.connected(), "the store does not connect");
      const layer = Buffer.from("a layer that is unpacked");
      const layerDigest = sha256Digest(layer);
      const config = await driver.addContent(Buffer.from("{}"));
      const add = async (text: string, keeps: Readonly<Record<string, string>>): Promise<void> => {
        const digest = await driver.addContent(Buffer.from(text));
        await driver.setLabels(digest, new Map(Object.entries({ ...ROOT_LABEL, ...keeps })));
      };
      const reference = "containerd.io/gc.ref.content";
      const manifest = manifestOf([{ digest: layerDigest, bytes: layer }]);
      // Neither has layers to miss: one names none, the other is not told to lose them.
      await add(manifestOf([]), { [`${reference}.config`]: config });
      await add(`${manifest}\n`, { [`${reference}.config`]: config, [`${reference}.l.0`]: layerDigest });
      await add(manifest, { [`${reference}.config`]: config });
      await driver.addContent(layer);
      const warnings = (): number =>
        lines.filter((line) => /discard_unpacked_layers = false/.test(line)).length;

      await store.inventory({ signal });
      assert.deepEqual([store.imagesWithoutLayers(), warnings()], [0, 0]);
      await driver.removeContent(layerDigest);
      for (let i = 0; i < 2; i++) {
        await store.inventory({ signal });
        assert.deepEqual([store.imagesWithoutLayers(), warnings()], [1, 1]);
      }
      await driver.addContent(layer);
      await store.inventory({ signal });
      assert.deepEqual([store.imagesWithoutLayers(), warnings()], [0, 1]);
    });

    it("asks containerd for the content path when none is set", async () => {
      await using under = await start();
      await using store = openStore(under, { contentPath: "" });
      using driver = createContainerdDriver(under.socketPath);
      const digest = await driver.addContent(Buffer.from("discovered"));
      assert.equal(Buffer.from(await readContent(store, digest)).toString(), "discovered");
    });

    it("lists nothing when the files are not where they are said to be", async () => {
      await using under = await start();
      await using store = openStore(under, { contentPath: "/nonexistent" });
      using driver = createContainerdDriver(under.socketPath);
      await driver.addContent(Buffer.from("somewhere else"), { origin: ORIGIN });
      await assert.rejects(store.inventory({ signal }), {
        code: "STORE_UNAVAILABLE",
        message: /nonexistent/,
      });
    });

    it("does not serve a file that is shorter than containerd says, nor one that is gone", async () => {
      await using under = await start();
      await using store = openStore(under);
      using driver = createContainerdDriver(under.socketPath);
      const damaged = await driver.addContent(Buffer.from("will be damaged"));
      const gone = await driver.addContent(Buffer.from("will be gone"));
      const path = (digest: Digest): string => join(under.contentPath, "blobs", "sha256", digestHex(digest));
      await truncate(path(damaged), 3);
      await rm(path(gone));
      for (const digest of [damaged, gone]) {
        assert.equal(await store.open(digest, { signal }), undefined);
        assert.equal(await store.stat(digest, { signal }), undefined);
      }
    });
  });
}

describe("containerd store over a fake containerd", () => {
  it("tells of each content of 2.x as soon as it has its label, while the image is still being pulled", async () => {
    await using under = await startFakeContainerd({ version: "2.1.9" });
    await using store = openStore(under);
    using driver = createContainerdDriver(under.socketPath);
    await eventually(() => store.connected(), "the store does not connect");
    await using hints = collectHints(store);
    const digest = await driver.addContent(Buffer.from("layer"));
    const label = `containerd.io/distribution.source.${ORIGIN.registry}`;
    await driver.setLabels(digest, new Map([[label, ORIGIN.repository]]));
    await hints.see((change) => change.kind === "added");
    const added = hints.seen.filter((each) => each.kind === "added");
    assert.deepEqual(added, [{ kind: "added", content: { digest, origins: [ORIGIN] } }]);
  });

  it("hints once more after image events, since what is collected after them has no event", async () => {
    await using under = await startFakeContainerd({ version: "1.6.20" });
    const never = 3_600_000;
    await using store = openStore(under, { refreshIntervalMs: never, collectedAfterMs: 5 });
    using driver = createContainerdDriver(under.socketPath);
    await eventually(() => store.connected(), "the store does not connect");
    await using hints = collectHints(store);
    await driver.setImage(NAME, await driver.addContent(Buffer.from(manifestOf([]))));
    await eventually(
      () => hints.seen.filter(isChanged).length === 2,
      "one hint for the event, one for after it",
    );
  });

  it("tells of content without a label after the retries, and not of content that vanished", async () => {
    await using under = await startFakeContainerd({ version: "2.1.9" });
    await using store = openStore(under);
    using driver = createContainerdDriver(under.socketPath);
    await eventually(() => store.connected(), "the store does not connect");
    await using hints = collectHints(store);
    const vanished = await driver.addContent(Buffer.from("vanished"));
    await under.collect(vanished);
    const digest = await driver.addContent(Buffer.from("unlabelled"));
    await hints.see((change) => change.kind === "added");
    const added = hints.seen.filter((each) => each.kind === "added");
    assert.deepEqual(added, [{ kind: "added", content: { digest, origins: [] } }]);
  });

  it("hints from time to time without events, since garbage collection sends none", async () => {
    await using under = await startFakeContainerd();
    await using store = openStore(under, { refreshIntervalMs: 10 });
    using driver = createContainerdDriver(under.socketPath);
    await eventually(() => store.connected(), "the store does not connect");
    const digest = await driver.addContent(Buffer.from("collected"));
    await under.collect(digest);
    await using hints = collectHints(store);
    await hints.see(isChanged);
    assert.deepEqual((await store.inventory({ signal })).contents, []);
  });

  it("takes malformed, foreign and countless events for no more than hints", async () => {
    await using under = await startFakeContainerd();
    await using store = openStore(under);
    await eventually(() => store.connected(), "the store does not connect");
    await using hints = collectHints(store);
    const create = (value: Uint8Array): void =>
      under.emit({ namespace: "k8s.io", topic: "/content/create", event: { typeUrl: "x", value } });
    create(Buffer.from([0xff, 0xff, 0xff]));
    await hints.see(isChanged);
    create(ContentCreate.encode({ digest: "sha256:../../etc/passwd" }));
    under.emit({ namespace: "k8s.io", topic: "/content/delete", event: undefined });
    for (let i = 0; i < 3000; i++) create(ContentCreate.encode({ digest: sha256Digest(String(i)) }));
    under.emit({ namespace: "k8s.io", topic: "/images/create", event: undefined });
    await eventually(() => hints.seen.length > 1, "no further hint");
    assert.ok(hints.seen.every(isChanged));
    assert.ok(store.connected());
  });

  it("lists 5,000 contents and asks no file for those that have labels", async () => {
    await using under = await startFakeContainerd();
    await using store = openStore(under);
    under.list(
      "k8s.io",
      Array.from({ length: 5000 }, (_, i) => ({
        digest: sha256Digest(String(i)),
        labels: new Map([[`containerd.io/distribution.source.r${i % 3}.example.test`, `app-${i % 500}`]]),
      })),
    );
    const { contents } = await store.inventory({ signal });
    assert.equal(contents.length, 5000);
    assert.ok(contents.every((each) => each.origins.length === 1));
  });

  it("lists at most 50,000 contents", async () => {
    await using under = await startFakeContainerd();
    await using store = openStore(under);
    const contents = Array.from({ length: 50_100 }, (_, i) => ({
      digest: sha256Digest(`${i}`),
      labels: new Map(),
    }));
    under.list("k8s.io", contents);
    assert.equal((await store.inventory({ signal })).contents.length, 50_000);
  });

  it("ignores labels and digests that are none", async () => {
    await using under = await startFakeContainerd();
    await using store = openStore(under);
    const digest = sha256Digest("labelled");
    const label = "containerd.io/distribution.source.";
    const labels = new Map([
      [`${label}registry.example.test`, "good,../bad,UPPER,,x y"],
      [`${label}`, "no/registry"],
      [`${label}"evil"\n`, "a"],
      ["unrelated", "b"],
    ]);
    under.list("k8s.io", [
      { digest, labels },
      { digest: "sha256:abc", labels },
      { digest: "", labels },
    ]);
    assert.deepEqual((await store.inventory({ signal })).contents, [
      { digest, origins: [{ registry: "registry.example.test", repository: "good" }] },
    ]);
  });

  for (const [what, build] of [
    ["a chain of 50 indexes", chain],
    ["manifests of thousands of children", wide],
    ["documents of 4 MiB and more", large],
    ["indexes that claim layers and garbage as manifests", lying],
  ] as const) {
    it(`takes an inventory over ${what}`, async () => {
      await using under = await startFakeContainerd();
      await using store = openStore(under);
      using driver = createContainerdDriver(under.socketPath);
      const { digests, root, reached } = await build((bytes) => driver.addContent(bytes));
      await driver.setImage(NAME, root);
      const { contents } = await store.inventory({ signal });
      assert.deepEqual(contents.map((each) => each.digest).toSorted(), [...new Set(digests)].toSorted());
      const withOrigin = contents.filter((each) => each.origins.length > 0);
      assert.equal(withOrigin.length, reached);
    });
  }

  it("refuses a socket path that no socket can have", () => {
    const options = { contentPath: "/x", namespaces: ["k8s.io"] };
    for (const socketPath of ["relative.sock", `/${"x".repeat(120)}`]) {
      assert.throws(() => openContainerdStore({ log: silentLogger }, { ...options, socketPath }), {
        code: "STORE_UNAVAILABLE",
      });
    }
  });

  it("leaves no subscription behind when it is disposed", async () => {
    await using under = await startFakeContainerd();
    const store = openStore(under);
    await eventually(() => store.connected(), "the store does not connect");
    assert.equal(under.subscriptions(), 1);
    await store[Symbol.asyncDispose]();
    await eventually(() => under.subscriptions() === 0, "the subscription stays");
  });
});

type Add = (bytes: Uint8Array) => Promise<Digest>;
interface Hostile {
  readonly digests: readonly Digest[];
  readonly root: Digest;
  /** How many contents the walk may attribute to the image. */
  readonly reached: number;
}

function indexOf(manifests: readonly Digest[]): Buffer {
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const entries = manifests.map((digest) => ({ mediaType, digest, size: 1 }));
  return Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: entries }));
}

async function chain(add: Add): Promise<Hostile> {
  const digests = [await add(indexOf([]))];
  for (let i = 0; i < 50; i++) digests.push(await add(indexOf([digests.at(-1) as Digest])));
  return { digests, root: digests.at(-1) as Digest, reached: 8 };
}

async function wide(add: Add): Promise<Hostile> {
  const layer = await add(Buffer.from("layer"));
  const absent = Array.from({ length: 4000 }, (_, i) => sha256Digest(`absent ${i}`));
  const full = await add(indexOf([...absent, layer]));
  const overfull = await add(indexOf([...absent, ...absent, layer]));
  const root = await add(indexOf([full, overfull, full]));
  return { digests: [layer, full, overfull, root], root, reached: 4 };
}

async function large(add: Add): Promise<Hostile> {
  const child = await add(Buffer.from("child"));
  const padding = (sizeBytes: number): string => " ".repeat(sizeBytes);
  const padded = await add(Buffer.concat([indexOf([child]), Buffer.from(padding(4 * 1024 * 1024))]));
  const fits = await add(Buffer.concat([indexOf([child]), Buffer.from(padding(4 * 1024 * 1024 - 300))]));
  const nested = await add(Buffer.from(`{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`));
  const root = await add(indexOf([padded, nested]));
  return { digests: [child, padded, fits, nested, root], root, reached: 3 };
}

async function lying(add: Add): Promise<Hostile> {
  const texts = [
    "a layer",
    '{"schemaVersion":2,"manifests":{}}',
    '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":7}',
    '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[null]}',
    '{"config":{},"layers":[{"digest":"sha256:../../x","size":-1}]}',
    '{"manifests":[{"digest":"__proto__"}]}',
    "\u0000",
  ];
  const digests = await Promise.all(texts.map((text) => add(Buffer.from(text))));
  const root = await add(indexOf(digests));
  return { digests: [...digests, root], root, reached: digests.length + 1 };
}
