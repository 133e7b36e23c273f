// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { hasCode } from "#errors";
import { createMemoryStore, type WritableContentStore } from "#store";
import { type ImageLayout, type ImageObject, makeImage } from "../image-maker/index.ts";
import { type Fault, type Registry, startRegistry } from "../registry/index.ts";
import { createPullClient, type PullClientOptions, type PullErrorCode, type PullReport } from "./index.ts";

// The name in references; `dial` leads it to the upstream of the test.
const REGISTRY = "localhost:5555";
const REFERENCE = `${REGISTRY}/team/app:v1`;
const MIRROR = "http://mirror.test:5000";
const UPSTREAM = `http://${REGISTRY}`;
const never = new AbortController().signal;

let folder: string;
let layout: ImageLayout;
let layers: readonly ImageObject[];
let upstream: Registry;
let mirror: Registry;
let store: WritableContentStore;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "pull-client-"));
  layout = await makeImage(
    join(folder, "image"),
    {
      seed: "pull",
      layerSizesBytes: [400_000, 300_000, 200_000, 100_000, 50_000],
      platforms: [
        { os: "linux", architecture: "arm64" },
        { os: "linux", architecture: "amd64" },
      ],
    },
    { signal: never },
  );
  layers = layout.objects.filter((object) => object.kind === "layer").slice(5);
  await writeHosts(`[host."${MIRROR}"]\ncapabilities = ["pull", "resolve"]\n`);
});
after(async () => {
  await rm(folder, { recursive: true, force: true });
});

beforeEach(async () => {
  [upstream, mirror] = await Promise.all([
    startRegistry({ implementation: "node", signal: never }),
    startRegistry({ implementation: "node", signal: never }),
  ]);
  await upstream.push(layout, "v1", "team/app", { signal: never });
  store = createMemoryStore();
});
afterEach(async () => {
  await Promise.all([upstream[Symbol.asyncDispose](), mirror[Symbol.asyncDispose]()]);
});

async function writeHosts(text: string): Promise<void> {
  await mkdir(join(folder, "certs.d", "_default"), { recursive: true });
  await writeFile(join(folder, "certs.d", "_default", "hosts.toml"), text);
}

async function pull(reference = REFERENCE, options: Partial<PullClientOptions> = {}): Promise<PullReport> {
  using client = createPullClient({
    hostsDirectory: join(folder, "certs.d"),
    store,
    dial: ({ host }) => ({ host: "127.0.0.1", port: host === "mirror.test" ? mirror.port : upstream.port }),
    progressTimeoutMs: 20_000,
    ...options,
  });
  return await client.pull(reference, { signal: never });
}

const failsWith =
  (code: PullErrorCode, message = /./) =>
  (error: unknown): boolean =>
    hasCode(error, code) && message.test(error.message);

const isLayer =
  (layer: ImageObject | undefined) =>
  (request: { readonly path: string; readonly method: string }): boolean =>
    request.method === "GET" && request.path.endsWith(`/blobs/${layer?.digest}`);

/** Everything the mirror would have to have for a whole pull. */
async function fillMirror(): Promise<void> {
  await mirror.push(layout, "v1", "team/app", { signal: never });
}

function bytesFrom(report: PullReport, host: string): number {
  return report.objects
    .flatMap((object) => object.parts)
    .filter((part) => part.host === host)
    .reduce((sum, part) => sum + part.bytes, 0);
}

const total = (report: PullReport): number =>
  report.objects.reduce((sum, object) => sum + object.sizeBytes, 0);

describe("a pull", () => {
  test("asks the mirror first for every object and gets what is missing there from the registry", async () => {
    const report = await pull();
    assert.equal(report.digest, layout.root.digest);
    assert.equal(report.resolvedBy, UPSTREAM);
    assert.deepEqual(report.objects.map((object) => object.kind).sort(), [
      "config",
      "index",
      "layer",
      "layer",
      "layer",
      "layer",
      "layer",
      "manifest",
    ]);
    assert.equal(bytesFrom(report, UPSTREAM), total(report));
    assert.equal(upstream.bytesServed(), total(report));
    for (const object of report.objects) {
      assert.deepEqual(object.refusals, [{ host: MIRROR, mirror: true, status: 404, reason: "status 404" }]);
    }
    assert.ok(mirror.requests().every((request) => request.ns === REGISTRY));
    assert.ok(upstream.requests().every((request) => request.ns === undefined));
    assert.deepEqual(
      mirror
        .requests()
        .slice(0, 2)
        .map(({ method, path }) => `${method} ${path}`),
      ["HEAD /v2/team/app/manifests/v1", `GET /v2/team/app/manifests/${layout.root.digest}`],
    );
    assert.equal(await store.resolve(REFERENCE, { signal: never }), layout.root.digest);
    assert.equal(
      await store.resolve(`${REGISTRY}/team/app@${layout.root.digest}`, { signal: never }),
      layout.root.digest,
    );
  });

  test("takes everything from a mirror that has it and leaves the registry alone", async () => {
    await fillMirror();
    const report = await pull();
    assert.equal(report.resolvedBy, MIRROR);
    assert.equal(bytesFrom(report, MIRROR), total(report));
    assert.equal(mirror.bytesServed(), total(report));
    assert.equal(upstream.requests().length, 0);
  });

  test("by digest looks for the manifest and asks for it by its digest", async () => {
    const report = await pull(`${REGISTRY}/team/app@${layout.root.digest}`);
    assert.equal(report.digest, layout.root.digest);
    assert.equal(upstream.requests()[0]?.method, "HEAD");
    assert.equal(upstream.requests()[0]?.path, `/v2/team/app/manifests/${layout.root.digest}`);
  });

  test("fetches only its own platform", async () => {
    const report = await pull(REFERENCE, { platform: { os: "linux", architecture: "arm64", variant: "v8" } });
    const arm = layout.objects.filter((object) => object.kind === "layer").slice(0, 5);
    for (const layer of arm) assert.ok(report.objects.some((object) => object.digest === layer.digest));
    assert.equal(report.objects.length, 8);
    await assert.rejects(
      pull(REFERENCE, { platform: { os: "linux", architecture: "s390x" } }),
      failsWith("PULL_PLATFORM_MISSING"),
    );
  });

  test("fetches three objects at a time, not more", async () => {
    let running = 0;
    let most = 0;
    const counting: WritableContentStore = {
      ...store,
      async put(...args) {
        most = Math.max(most, ++running);
        await store.put(...args);
        running--;
      },
    };
    await pull(REFERENCE, { store: counting });
    assert.equal(most, 3);
  });

  test("does not ask for what the store has", async () => {
    await pull();
    const before = upstream.requests().length;
    const again = await pull();
    assert.ok(again.objects.every((object) => object.parts.length === 0));
    assert.equal(bytesFrom(again, UPSTREAM), 0);
    assert.deepEqual(
      upstream
        .requests()
        .slice(before)
        .map((request) => request.method),
      ["HEAD"],
    );
  });

  test("asks only hosts with the capability", async () => {
    await fillMirror();
    await writeHosts(`[host."${MIRROR}"]\ncapabilities = ["pull"]\n`);
    try {
      const report = await pull();
      assert.equal(report.resolvedBy, UPSTREAM);
      assert.equal(bytesFrom(report, MIRROR), total(report));
    } finally {
      await writeHosts(`[host."${MIRROR}"]\ncapabilities = ["pull", "resolve"]\n`);
    }
  });
});

describe("a mirror that fails", () => {
  test("with 404, 500 or 503, or refuses the connection, sends each request to the next host", async () => {
    for (const status of [404, 500, 503]) {
      store = createMemoryStore();
      using _rule = mirror.fail({ match: () => true, fault: { kind: "status", status } });
      const before = mirror.requests().length;
      const report = await pull();
      assert.equal(bytesFrom(report, UPSTREAM), total(report));
      // Every object tried the mirror, and none twice.
      assert.equal(mirror.requests().length - before, 1 + report.objects.length);
    }
    store = createMemoryStore();
    await mirror[Symbol.asyncDispose]();
    const report = await pull();
    assert.equal(bytesFrom(report, UPSTREAM), total(report));
    assert.match(report.objects[0]?.refusals[0]?.reason ?? "", /ECONNREFUSED/);
  });

  test("with 429 is asked six times in a row before the next host", async () => {
    await fillMirror();
    using _rule = mirror.fail({ match: isLayer(layers[0]), fault: { kind: "status", status: 429 } });
    const report = await pull();
    assert.equal(mirror.requests().filter((request) => isLayer(layers[0])(request)).length, 6);
    const layer = report.objects.find((object) => object.digest === layers[0]?.digest);
    assert.deepEqual(
      layer?.parts.map((part) => part.host),
      [UPSTREAM],
    );
    assert.equal(layer?.refusals[0]?.status, 429);
  });

  test("in the middle of a blob is asked for the rest first, then the registry is", async () => {
    await fillMirror();
    const [layer] = layers;
    using _cut = mirror.fail({ match: isLayer(layer), fault: { kind: "cut", afterBytes: 70_000 }, times: 1 });
    using _gone = mirror.fail({ match: isLayer(layer), fault: { kind: "status", status: 404 }, times: 1 });
    const report = await pull();
    const pulled = report.objects.find((object) => object.digest === layer?.digest);
    assert.deepEqual(pulled?.parts, [
      { host: MIRROR, mirror: true, offset: 0, bytes: 70_000 },
      { host: UPSTREAM, mirror: false, offset: 70_000, bytes: (layer?.sizeBytes ?? 0) - 70_000 },
    ]);
    assert.deepEqual(
      mirror
        .requests()
        .filter((request) => isLayer(layer)(request))
        .map((request) => request.range),
      [undefined, "bytes=70000-"],
    );
    assert.equal(upstream.bytesServed(), (layer?.sizeBytes ?? 0) - 70_000);
  });

  test("in the middle of a blob, and is back at once, goes on with the rest", async () => {
    await fillMirror();
    const [layer] = layers;
    using _cut = mirror.fail({ match: isLayer(layer), fault: { kind: "cut", afterBytes: 50_000 }, times: 5 });
    const report = await pull();
    const pulled = report.objects.find((object) => object.digest === layer?.digest);
    assert.deepEqual(
      pulled?.parts.map((part) => part.offset),
      [0, 50_000, 100_000, 150_000, 200_000, 250_000],
    );
    assert.equal(upstream.bytesServed(), 0);
  });

  test("again and again without a byte between ends the pull", async () => {
    await fillMirror();
    const [layer] = layers;
    const cutAll = (request: {
      readonly path: string;
      readonly method: string;
      readonly range?: string;
    }): boolean => isLayer(layer)(request) && request.range !== undefined;
    using _first = mirror.fail({ match: isLayer(layer), fault: { kind: "cut", afterBytes: 10 }, times: 1 });
    using _rest = mirror.fail({ match: cutAll, fault: { kind: "cut", afterBytes: 0 } });
    await assert.rejects(pull(), failsWith("PULL_CONNECTION_LOST"));
    assert.equal(mirror.requests().filter((request) => cutAll(request)).length, 3);
  });

  test("by resetting the connection ends the pull, as containerd resumes only after an orderly end", async () => {
    await fillMirror();
    using _rule = mirror.fail({
      match: isLayer(layers[0]),
      fault: { kind: "reset", afterBytes: 10_000 },
      times: 1,
    });
    await assert.rejects(pull(), failsWith("PULL_CONNECTION_LOST"));
  });

  test("by sending wrong bytes ends the pull, and they are not kept", async () => {
    await fillMirror();
    using _rule = mirror.fail({ match: isLayer(layers[0]), fault: { kind: "corrupt" }, times: 1 });
    await assert.rejects(pull(), failsWith("PULL_DIGEST_MISMATCH"));
    assert.equal(await store.stat(layers[0]?.digest ?? layout.root.digest, { signal: never }), undefined);
    assert.equal(upstream.bytesServed(), 0);
  });

  for (const fault of [{ kind: "hang" }, { kind: "stall", afterBytes: 1000 }] as const satisfies Fault[]) {
    test(`with ${fault.kind} holds the pull until the progress timeout ends it`, async () => {
      await fillMirror();
      using _rule = mirror.fail({ match: isLayer(layers[0]), fault });
      await assert.rejects(pull(REFERENCE, { progressTimeoutMs: 300 }), failsWith("PULL_STALLED"));
    });
  }
});

describe("the registry", () => {
  test("is asked twice when it fails with 500 as the last host", async () => {
    using _rule = upstream.fail({
      match: isLayer(layers[0]),
      fault: { kind: "status", status: 500 },
      times: 1,
    });
    const report = await pull();
    assert.equal(report.objects.length, 8);
    using _more = upstream.fail({ match: isLayer(layers[1]), fault: { kind: "status", status: 500 } });
    store = createMemoryStore();
    await assert.rejects(pull(), failsWith("PULL_REFUSED", /status 500/));
  });

  test("without the image, and a mirror without it, is not found", async () => {
    await assert.rejects(
      pull(`${REGISTRY}/team/app:v2`),
      failsWith("PULL_NOT_FOUND", /mirror.test.*localhost:5555/),
    );
  });

  test("without a length makes the client fetch the manifest to learn it", async () => {
    const isRoot = (request: { readonly path: string }): boolean => request.path.endsWith("/manifests/v1");
    using _rule = upstream.fail({ match: isRoot, fault: { kind: "no-content-length" } });
    const report = await pull();
    assert.equal(report.digest, layout.root.digest);
    assert.deepEqual(
      upstream
        .requests()
        .filter(isRoot)
        .map((request) => request.method),
      ["HEAD", "GET"],
    );
  });

  for (const scheme of ["basic", "bearer"] as const) {
    test(`gets ${scheme} credentials when it asks, and the mirror never does`, async () => {
      await using closed = await startRegistry({
        implementation: "node",
        authentication: { scheme, username: "u", password: "p" },
        signal: never,
      });
      await closed.push(layout, "v1", "team/app", { signal: never });
      const dial: PullClientOptions["dial"] = ({ host, port }) => ({
        host: "127.0.0.1",
        port: host === "mirror.test" ? mirror.port : port === closed.port ? port : closed.port,
      });
      await assert.rejects(pull(REFERENCE, { dial }), failsWith("PULL_REFUSED", /status 401/));
      const report = await pull(REFERENCE, { dial, credentials: { username: "u", password: "p" } });
      assert.equal(bytesFrom(report, UPSTREAM), total(report));
      store = createMemoryStore();
      using _rule = mirror.fail({
        match: () => true,
        fault: { kind: "status", status: 401, headers: { "www-authenticate": 'Basic realm="x"' } },
      });
      await pull(REFERENCE, { dial, credentials: { username: "u", password: "p" } });
    });
  }
});

describe("an answer that makes no sense", () => {
  /** Answers as `listener` says, in place of the mirror, and 404 to what it leaves open. */
  async function pullWithMirror(listener: RequestListener): Promise<PullReport> {
    const server = createServer((request, response) => {
      listener(request, response);
      if (response.writableEnded || response.headersSent) return;
      response.statusCode = 404;
      response.end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    try {
      return await pull(REFERENCE, {
        dial: ({ host }) => ({ host: "127.0.0.1", port: host === "mirror.test" ? port : upstream.port }),
      });
    } finally {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  test("to HEAD: a malformed digest ends the pull, an enormous manifest is passed by", async () => {
    await assert.rejects(
      pullWithMirror((request, response) => {
        if (request.method !== "HEAD") return;
        response.writeHead(200, { "docker-content-digest": "sha256:../../x", "content-length": 5 });
        response.end();
      }),
      failsWith("PULL_REFUSED", /malformed digest/),
    );
    const report = await pullWithMirror((request, response) => {
      if (request.method !== "HEAD") return;
      response.writeHead(200, { "docker-content-digest": layout.root.digest, "content-length": 50_000_000 });
      response.end();
    });
    assert.equal(report.resolvedBy, UPSTREAM);
  });

  test("to HEAD: a type that is no manifest ends the pull", async () => {
    await assert.rejects(
      pullWithMirror((request, response) => {
        if (request.method !== "HEAD") return;
        response.writeHead(200, {
          "docker-content-digest": layout.root.digest,
          "content-length": layout.root.sizeBytes,
          "content-type": "text/html",
        });
        response.end();
      }),
      failsWith("PULL_MANIFEST_INVALID", /text\/html/),
    );
  });

  test("to GET: more or fewer bytes than the descriptor says end the pull", async () => {
    const digest = layers[0]?.digest;
    for (const sizeBytes of [10, (layers[0]?.sizeBytes ?? 0) + 10]) {
      store = createMemoryStore();
      await assert.rejects(
        pullWithMirror((request, response) => {
          if (request.url?.includes(`/blobs/${digest}`)) response.end(Buffer.alloc(sizeBytes));
        }),
        failsWith("PULL_SIZE_MISMATCH"),
      );
    }
  });

  test("to GET: a content coding is refused and the next host asked", async () => {
    const report = await pullWithMirror((request, response) => {
      if (request.url?.includes(`/blobs/${layers[0]?.digest}`) !== true) return;
      response.writeHead(200, { "content-encoding": "gzip" });
      response.end("x");
    });
    assert.equal(bytesFrom(report, UPSTREAM), total(report));
  });

  for (const [how, ignoresRange] of [
    ["sends the whole body is read up to the offset", true],
    ["sends another range is left for the next", false],
  ] as const) {
    test(`to a range: a host that ${how}`, async () => {
      const layer = layers[0] as ImageObject;
      const bytes = await readFile(layout.blobPath(layer.digest));
      const report = await pullWithMirror((request, response) => {
        if (request.url?.includes(`/blobs/${layer.digest}`) !== true) return;
        if (request.headers.range === undefined) {
          response.writeHead(200, { "content-length": bytes.length });
          response.write(bytes.subarray(0, 100_000), () => response.destroy());
          return;
        }
        if (ignoresRange) {
          response.end(bytes);
          return;
        }
        response.writeHead(206, { "content-range": `bytes 0-9/${bytes.length}`, "content-length": 10 });
        response.end(bytes.subarray(0, 10));
      });
      const pulled = report.objects.find((object) => object.digest === layer.digest);
      assert.deepEqual(pulled?.parts, [
        { host: MIRROR, mirror: true, offset: 0, bytes: 100_000 },
        {
          host: ignoresRange ? MIRROR : UPSTREAM,
          mirror: ignoresRange,
          offset: 100_000,
          bytes: bytes.length - 100_000,
        },
      ]);
    });
  }

  test("a manifest whose bytes are no manifest is refused by its digest", async () => {
    await assert.rejects(
      pullWithMirror((request, response) => {
        if (request.method !== "GET" || request.url?.includes("/manifests/") !== true) return;
        response.end("x".repeat(layout.root.sizeBytes));
      }),
      failsWith("PULL_DIGEST_MISMATCH"),
    );
  });
});

test("a pull ends with the caller's signal, and a reference without a registry is refused", async () => {
  const stop = new AbortController();
  using _rule = mirror.fail({ match: () => true, fault: { kind: "hang" } });
  using client = createPullClient({
    hostsDirectory: join(folder, "certs.d"),
    store,
    dial: () => ({ host: "127.0.0.1", port: mirror.port }),
  });
  const pulling = client.pull(REFERENCE, { signal: stop.signal });
  stop.abort(new Error("enough"));
  await assert.rejects(pulling, /enough/);
  await assert.rejects(client.pull("nginx", { signal: never }), (error) =>
    hasCode(error, "OCI_REFERENCE_INVALID"),
  );
});
