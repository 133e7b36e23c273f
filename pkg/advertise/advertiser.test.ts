// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { silentLogger } from "#log";
import { createMetrics, type Metrics } from "#metrics";
import { type Digest, sha256Digest } from "#oci";
import type { Router } from "#routing";
import { type ContentOrigin, type ContentStore, createMemoryStore, type MemoryStore } from "#store";
import { type AdvertiserOptions, createAdvertiser } from "./advertiser.ts";
import { createAdvertiseMetrics } from "./metrics.ts";
import type { Clock, Filters } from "./ports.ts";

const signal = AbortSignal.timeout(60_000);
const DOCKER = { registry: "docker.io", repository: "library/busybox" };
const PRIVATE = { registry: "registry.example.test", repository: "secret/app" };
const admitAll: Filters = { empty: true, admitsName: () => true };
const dockerOnly: Filters = { empty: false, admitsName: ({ registry }) => registry === "docker.io" };
const notLatest: Filters = { empty: false, admitsName: ({ tag }) => tag !== "latest" };

/** A router that keeps what it was told, and fails or waits when a test wants that. */
function createRecordingRouter(): Router & {
  readonly keys: Set<string>;
  readonly calls: string[];
  before: (operation: "advertise" | "withdraw") => Promise<void>;
} {
  const keys = new Set<string>();
  const calls: string[] = [];
  const router = {
    keys,
    calls,
    before: async (_operation: "advertise" | "withdraw"): Promise<void> => {},
    ready: () => true,
    async *lookup() {},
    async advertise(given: readonly string[]) {
      await router.before("advertise");
      calls.push(`advertise ${given.length}`);
      for (const key of given) keys.add(key);
    },
    async withdraw(given: readonly string[]) {
      await router.before("withdraw");
      calls.push(`withdraw ${given.length}`);
      for (const key of given) keys.delete(key);
    },
  };
  return router;
}

/** A clock that a test moves. `sleeping` tells for how long somebody waits. */
function createTestClock(): Clock & { sleeping(): number[]; advance(ms: number): void } {
  let nowMs = 0;
  const sleepers = new Set<{ readonly untilMs: number; readonly wake: () => void }>();
  return {
    now: () => nowMs,
    sleeping: () => Array.from(sleepers, (each) => each.untilMs - nowMs),
    sleep(ms, { signal: stop }) {
      return new Promise((resolve, reject) => {
        if (stop.aborted) return reject(stop.reason as Error);
        const sleeper = {
          untilMs: nowMs + ms,
          wake: () => {
            sleepers.delete(sleeper);
            resolve();
          },
        };
        sleepers.add(sleeper);
        stop.addEventListener("abort", () => {
          sleepers.delete(sleeper);
          reject(stop.reason as Error);
        });
      });
    },
    advance(ms) {
      nowMs += ms;
      for (const each of sleepers) if (each.untilMs <= nowMs) each.wake();
    },
  };
}

interface Running extends AsyncDisposable {
  readonly store: MemoryStore;
  readonly router: ReturnType<typeof createRecordingRouter>;
  readonly metrics: Metrics;
  readonly synced: () => boolean;
}

/** An advertiser at work. Without a clock it reacts to hints at once and lists again every hour. */
function run(
  settings: {
    readonly store?: MemoryStore;
    readonly watched?: ContentStore;
    readonly router?: ReturnType<typeof createRecordingRouter>;
    readonly filters?: Filters;
    readonly clock?: Clock;
    readonly options?: AdvertiserOptions;
  } = {},
): Running {
  const { store = createMemoryStore(), router = createRecordingRouter(), filters = admitAll } = settings;
  const metrics = createMetrics();
  const advertiser = createAdvertiser(
    {
      store: settings.watched ?? store,
      router,
      filters,
      metrics: createAdvertiseMetrics(metrics),
      log: silentLogger,
      ...(settings.clock && { clock: settings.clock }),
    },
    settings.options ?? { debounceMs: 0, intervalMs: 3_600_000, retry: { initialMs: 1, maxMs: 2 } },
  );
  const stop = new AbortController();
  const running = advertiser.run({ signal: stop.signal });
  return {
    store,
    router,
    metrics,
    synced: () => advertiser.synced(),
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

async function put(store: MemoryStore, text: string, origin?: ContentOrigin): Promise<Digest> {
  const digest = sha256Digest(text);
  await store.put(digest, Buffer.from(text), { signal, ...(origin && { origin }) });
  return digest;
}

async function eventually(holds: () => boolean, complaint: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!holds()) {
    if (performance.now() > deadline) assert.fail(complaint);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const announces = (running: Running, keys: readonly string[]): Promise<void> =>
  eventually(
    () => running.router.keys.size === keys.length && keys.every((key) => running.router.keys.has(key)),
    `wanted ${keys.join(", ")}, announced ${[...running.router.keys].join(", ")}`,
  );

describe("advertiser", () => {
  it("announces digests and tags of everything that is there, then is synced", async () => {
    const store = createMemoryStore();
    const layer = await put(store, "layer", DOCKER);
    const manifest = await put(store, "manifest", DOCKER);
    await store.tag("docker.io/library/busybox:1", manifest, { signal });
    await using running = run({ store });
    assert.equal(running.synced(), false);
    await eventually(() => running.synced(), "never synced");
    await announces(running, [layer, manifest, "docker.io/library/busybox:1"]);
  });

  it("is synced with nothing to announce", async () => {
    await using running = run();
    await eventually(() => running.synced(), "never synced");
    assert.deepEqual(running.router.calls, []);
  });

  it("follows new content, new tags, moved tags and removals", async () => {
    await using running = run();
    const { store } = running;
    const first = await put(store, "first", DOCKER);
    await announces(running, [first]);
    await store.tag("docker.io/library/busybox:1", first, { signal });
    await announces(running, [first, "docker.io/library/busybox:1"]);
    const second = await put(store, "second", DOCKER);
    await store.tag("docker.io/library/busybox:1", second, { signal });
    store.remove(first);
    await announces(running, [second, "docker.io/library/busybox:1"]);
    store.untag("docker.io/library/busybox:1");
    await announces(running, [second]);
    store.remove(second);
    await announces(running, []);
  });

  it("announces only what the filters admit, and content if any of its origins is admitted", async () => {
    const store = createMemoryStore();
    const open = await put(store, "open", DOCKER);
    const secret = await put(store, "secret", PRIVATE);
    const both = await put(store, "both", PRIVATE);
    await put(store, "both", DOCKER);
    await put(store, "built here");
    await store.tag("docker.io/library/busybox:1", open, { signal });
    await store.tag("registry.example.test/secret/app:1", secret, { signal });
    await using running = run({ store, filters: dockerOnly });
    await announces(running, [open, both, "docker.io/library/busybox:1"]);
    const later = await put(store, "later", DOCKER);
    const hidden = await put(store, "hidden", PRIVATE);
    await announces(running, [open, both, later, "docker.io/library/busybox:1"]);
    assert.ok(!running.router.keys.has(hidden));
  });

  it("announces content without an origin when there are no filters", async () => {
    await using running = run();
    const built = await put(running.store, "built here");
    await announces(running, [built]);
  });

  it("announces a filtered tag's content by digest", async () => {
    const store = createMemoryStore();
    const manifest = await put(store, "manifest", DOCKER);
    await store.tag("docker.io/library/busybox:latest", manifest, { signal });
    await store.tag("docker.io/library/busybox:1", manifest, { signal });
    await using running = run({ store, filters: notLatest });
    await announces(running, [manifest, "docker.io/library/busybox:1"]);
  });

  it("announces no name that is not a tag or whose content is absent", async () => {
    const store = createMemoryStore();
    const manifest = await put(store, "manifest", DOCKER);
    const gone = await put(store, "gone", DOCKER);
    for (const name of [
      "busybox",
      "busybox:1",
      "a b",
      "docker.io/library/busybox",
      "https://docker.io/x:1",
      manifest,
    ]) {
      await store.tag(name, manifest, { signal });
    }
    await store.tag(`docker.io/library/busybox@${manifest}`, manifest, { signal });
    await store.tag(`docker.io/library/busybox:1@${manifest}`, manifest, { signal });
    await store.tag("docker.io/library/busybox:2", gone, { signal });
    store.remove(gone);
    await using running = run({ store });
    await announces(running, [manifest]);
  });

  it("announces new content at once, also while a list takes its time", async () => {
    const store = createMemoryStore();
    const listing = Promise.withResolvers<void>();
    const slow: ContentStore = {
      ...store,
      inventory: async (options) => {
        await listing.promise;
        return store.inventory(options);
      },
    };
    await using running = run({ store, watched: slow });
    const digest = await put(store, "layer", DOCKER);
    await announces(running, [digest]);
    assert.equal(running.synced(), false);
    listing.resolve();
    await eventually(() => running.synced(), "never synced");
  });

  it("does not withdraw content that came after the list was taken", async () => {
    const store = createMemoryStore();
    const taken = Promise.withResolvers<void>();
    const listing = Promise.withResolvers<void>();
    const slow: ContentStore = {
      ...store,
      inventory: async (options) => {
        const inventory = await store.inventory(options);
        taken.resolve();
        await listing.promise;
        return inventory;
      },
    };
    const options = { debounceMs: 3_600_000 };
    await using running = run({ store, watched: slow, options });
    await taken.promise;
    const digest = await put(store, "layer", DOCKER);
    await announces(running, [digest]);
    listing.resolve();
    await eventually(() => running.synced(), "never synced");
    assert.deepEqual(running.router.calls, ["advertise 1"]);
  });

  it("keeps what is announced while the store fails, and goes on when it no longer does", async () => {
    const store = createMemoryStore();
    let failures = 0;
    let failing = false;
    const broken: ContentStore = {
      ...store,
      inventory: async (options) => {
        if (!failing) return store.inventory(options);
        failures++;
        throw new Error("containerd is not there");
      },
    };
    const first = await put(store, "first", DOCKER);
    await using running = run({ store, watched: broken });
    await announces(running, [first]);
    failing = true;
    store.remove(first);
    await eventually(() => failures > 3, "does not retry");
    await announces(running, [first]);
    assert.match(await running.metrics.render(), /spegel_advertise_failures_total [1-9]/);
    failing = false;
    await announces(running, []);
  });

  it("is not synced before the router took the keys, and retries when it did not", async () => {
    const store = createMemoryStore();
    const digest = await put(store, "first", DOCKER);
    const router = createRecordingRouter();
    let failures = 0;
    router.before = async () => {
      if (failures++ < 3) throw new Error("no peers");
    };
    await using running = run({ store, router });
    await announces(running, [digest]);
    await eventually(() => running.synced(), "never synced");
    router.before = async (operation) => {
      if (operation === "withdraw" && failures++ < 8) throw new Error("no peers");
    };
    store.remove(digest);
    await announces(running, []);
  });

  it("goes on following a store whose hints end with an error", async () => {
    const store = createMemoryStore();
    let watches = 0;
    const broken: ContentStore = {
      ...store,
      watch: (options) => {
        if (watches++ > 1) return store.watch(options);
        return {
          [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new Error("stream broke")) }),
        };
      },
    };
    await using running = run({ store, watched: broken });
    await eventually(() => watches > 2, "does not watch again");
    const digest = await put(store, "layer", DOCKER);
    await announces(running, [digest]);
  });

  it("lists again after the interval without a hint, and after the debounce with one", async () => {
    const store = createMemoryStore();
    const clock = createTestClock();
    const silent: ContentStore = { ...store, watch: async function* () {} };
    await using running = run({
      store,
      watched: silent,
      clock,
      options: { intervalMs: 1000, debounceMs: 50 },
    });
    await eventually(() => running.synced(), "never synced");
    clock.advance(0);
    const digest = await put(store, "layer", DOCKER);
    await eventually(() => clock.sleeping().includes(1000) || clock.sleeping().includes(50), "does not wait");
    assert.equal(running.router.keys.size, 0);
    await eventually(() => {
      clock.advance(50);
      return running.router.keys.has(digest);
    }, "does not list again");
  });

  it("waits in proportion to what a list costs, so that hints cannot keep it busy", async () => {
    const store = createMemoryStore();
    const clock = createTestClock();
    let lists = 0;
    const costly: ContentStore = {
      ...store,
      inventory: async (options) => {
        lists++;
        clock.advance(200);
        return store.inventory(options);
      },
    };
    await using running = run({
      store,
      watched: costly,
      clock,
      options: { intervalMs: 60_000, debounceMs: 50 },
    });
    await eventually(() => running.synced(), "never synced");
    await eventually(() => clock.sleeping().includes(800), `waits ${clock.sleeping().join(", ")}`);
    await put(store, "layer", DOCKER);
    await put(store, "other", DOCKER);
    assert.equal(lists, 1);
  });

  it("ends quietly when the signal aborts, whatever it is doing", async () => {
    for (const stage of ["inventory", "advertise", "wait"] as const) {
      const store = createMemoryStore();
      await put(store, "layer", DOCKER);
      const reached = Promise.withResolvers<void>();
      const hang = (stop: AbortSignal): Promise<never> =>
        new Promise((_, reject) => {
          reached.resolve();
          stop.addEventListener("abort", () => reject(stop.reason as Error));
        });
      const router = createRecordingRouter();
      const stop = new AbortController();
      const advertiser = createAdvertiser({
        store: stage === "inventory" ? { ...store, inventory: ({ signal: given }) => hang(given) } : store,
        router:
          stage === "advertise" ? { ...router, advertise: (_, { signal: given }) => hang(given) } : router,
        filters: admitAll,
        metrics: createAdvertiseMetrics(createMetrics()),
        log: silentLogger,
      });
      const running = advertiser.run({ signal: stop.signal });
      if (stage === "wait") await eventually(() => advertiser.synced(), "never synced");
      else await reached.promise;
      stop.abort(new Error("shutting down"));
      await running;
    }
  });

  it("counts tags, images and content by registry", async () => {
    const store = createMemoryStore();
    const manifest = await put(store, "manifest", DOCKER);
    await put(store, "layer", DOCKER);
    await put(store, "layer", PRIVATE);
    await put(store, "built here");
    for (const tag of ["1", "2"]) await store.tag(`docker.io/library/busybox:${tag}`, manifest, { signal });
    await using running = run({ store });
    await eventually(() => running.synced(), "never synced");
    const text = await running.metrics.render();
    for (const line of [
      'spegel_advertised_image_tags{registry="docker.io"} 2',
      'spegel_advertised_image_digests{registry="docker.io"} 1',
      'spegel_advertised_content_digests{registry="docker.io"} 2',
      'spegel_advertised_content_digests{registry="registry.example.test"} 1',
      'spegel_advertised_content_digests{registry="unknown"} 1',
      "spegel_advertised_keys 5",
    ]) {
      assert.ok(text.includes(`${line}\n`), `${line} is not in\n${text}`);
    }
    store.untag("docker.io/library/busybox:1");
    store.untag("docker.io/library/busybox:2");
    await announces(
      running,
      [...running.router.keys].filter((key) => key.startsWith("sha256:")),
    );
    await eventually(() => running.router.keys.size === 3, "tags stay");
    assert.match(await running.metrics.render(), /spegel_advertised_keys 3\n/);
  });

  it("announces exactly what is there after any history of changes and failures", async () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("put" as const), content: fc.nat(5) }),
      fc.record({ kind: fc.constant("remove" as const), content: fc.nat(5) }),
      fc.record({ kind: fc.constant("tag" as const), content: fc.nat(5), tag: fc.nat(3) }),
      fc.record({ kind: fc.constant("untag" as const), tag: fc.nat(3) }),
      fc.record({ kind: fc.constant("fail" as const), times: fc.nat(2) }),
      fc.record({ kind: fc.constant("turn" as const) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const router = createRecordingRouter();
        let failures = 0;
        router.before = async () => {
          await new Promise((resolve) => setImmediate(resolve));
          if (failures-- > 0) throw new Error("refused");
        };
        await using running = run({ router });
        const { store } = running;
        for (const each of steps) {
          if (each.kind === "put") await put(store, `content ${each.content}`, DOCKER);
          if (each.kind === "remove") store.remove(sha256Digest(`content ${each.content}`));
          if (each.kind === "untag") store.untag(`docker.io/library/app:${each.tag}`);
          if (each.kind === "fail") failures = each.times;
          if (each.kind === "turn") await new Promise((resolve) => setImmediate(resolve));
          if (each.kind === "tag") {
            const digest = sha256Digest(`content ${each.content}`);
            if (await store.stat(digest, { signal }))
              await store.tag(`docker.io/library/app:${each.tag}`, digest, { signal });
          }
        }
        const { images, contents } = await store.inventory({ signal });
        const present = new Set<string>(contents.map((each) => each.digest));
        const names = images.filter((each) => present.has(each.digest)).map((each) => each.name);
        await announces(running, [...present, ...names]);
      }),
      { numRuns: 60 },
    );
  });
});
