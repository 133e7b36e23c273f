// SPDX-License-Identifier: Apache-2.0
/** `spegel registry` and a Go registry that asks, answers and judges as Spegel's does, in one swarm. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type Digest, sha256Digest } from "#oci";
import { eventually } from "#routing/testing";
import { openOCILayoutStore, type WritableContentStore } from "#store";
import { anyFree } from "../demo/free-ports.ts";
import { startProcess } from "../kit/process/index.ts";
import { buildGoPeer, type GoPeer, skipReason, startGoPeer } from "./go-peer.ts";

const GO = "127.0.0.51";
const OURS = "127.0.0.52";
const REGISTRY = "registry.example.test";
const REPOSITORY = "lib/app";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const signal = AbortSignal.timeout(900_000);

describe("registries of one swarm, Go's and ours", { skip: skipReason() }, () => {
  const stack = new AsyncDisposableStack();
  let peer: GoPeer;
  let store: WritableContentStore;
  let port: number;

  before(
    async () => {
      const executable = await buildGoPeer();
      port = await anyFree([GO, OURS]);
      peer = stack.use(
        await startGoPeer(executable, ["-listen", `/ip4/${GO}/tcp/0`, "-registry", `${GO}:${port}`]),
      );
      const directory = await mkdtemp(join(tmpdir(), "interop-"));
      stack.defer(() => rm(directory, { recursive: true, force: true }));
      store = await openOCILayoutStore({ directory }, { signal });
      stack.use(
        await startProcess({
          name: "spegel registry",
          command: process.execPath,
          args: [
            "--experimental-ffi",
            "--disable-warning=ExperimentalWarning",
            "cmd/spegel/main.ts",
            "registry",
            `--store=oci-layout:${directory}`,
            `--registry-addr=${OURS}:${port}`,
            `--router-addr=${OURS}:0`,
            `--metrics-addr=${OURS}:0`,
            "--log-level=ERROR",
            "--mirror-resolve-timeout=1s",
            "--bootstrap-kind=static",
            `--static-bootstrap-peers=${peer.addresses[0]}/p2p/${peer.id}`,
          ],
          ready: { kind: "http", url: `http://${OURS}:${port}/readyz` },
          readyTimeoutMs: 30_000,
          signal,
        }),
      );
      await eventually(
        () => peer.request({ op: "peers" }) as Promise<string[]>,
        (peers) => peers.length === 1,
      );
    },
    { timeout: 900_000 },
  );
  after(() => stack.disposeAsync());

  interface Content {
    readonly digest: Digest;
    readonly bytes: Buffer;
    readonly tag: string;
  }

  const newBlob = (sizeBytes = 300_000): { bytes: Buffer; digest: Digest } => {
    const bytes = randomBytes(sizeBytes);
    return { bytes, digest: sha256Digest(bytes) };
  };
  const newManifest = (): { bytes: Buffer; digest: Digest } => {
    const config = { mediaType: "application/vnd.oci.image.config.v1+json", ...describeBlob(newBlob(10)) };
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [] }));
    return { bytes, digest: sha256Digest(bytes) };
  };
  const describeBlob = ({ digest, bytes }: { digest: Digest; bytes: Buffer }) => ({
    digest,
    size: bytes.length,
  });
  let tags = 0;

  /** On Go's side, found by whoever asks from then on. */
  async function putInGo(kind: "manifests" | "blobs"): Promise<Content> {
    const { bytes, digest } = kind === "manifests" ? newManifest() : newBlob();
    const tag = `v${tags++}`;
    await peer.request({
      op: "put",
      mediaType: kind === "manifests" ? MANIFEST : "application/octet-stream",
      tag: kind === "manifests" ? `${REGISTRY}/${REPOSITORY}:${tag}` : "",
      content: bytes.toString("base64"),
    });
    return { digest, bytes, tag };
  }

  async function putInOurs(kind: "manifests" | "blobs"): Promise<Content> {
    const { bytes, digest } = kind === "manifests" ? newManifest() : newBlob();
    const tag = `v${tags++}`;
    await store.put(digest, bytes, { signal, origin: { registry: REGISTRY, repository: REPOSITORY } });
    const keys = [digest as string];
    if (kind === "manifests") {
      const name = `${REGISTRY}/${REPOSITORY}:${tag}`;
      await store.tag(name, digest, { signal });
      keys.push(name);
    }
    for (const key of keys) {
      await eventually(
        () => peer.request({ op: "records", keys: [key] }) as Promise<string[]>,
        (ids) => ids.length > 0,
      );
    }
    return { digest, bytes, tag };
  }

  /** A request as containerd makes it. */
  async function pull(
    address: string,
    kind: "manifests" | "blobs",
    reference: string,
    options: { readonly method?: string; readonly range?: string } = {},
  ): Promise<{ status: number; headers: Headers; body: Buffer }> {
    const response = await fetch(
      `http://${address}:${port}/v2/${REPOSITORY}/${kind}/${reference}?ns=${REGISTRY}`,
      {
        method: options.method ?? "GET",
        headers: options.range === undefined ? {} : { range: options.range },
        signal,
      },
    );
    return {
      status: response.status,
      headers: response.headers,
      body: Buffer.from(await response.arrayBuffer()),
    };
  }

  /**
   * What is passed in the end: on a busy machine a peer may answer later than the mirror waits, which is 404 then and
   * sends containerd elsewhere.
   */
  const pullPassed: typeof pull = (...request) =>
    eventually(
      () => pull(...request),
      ({ status }) => status !== 404,
      60_000,
    );

  const directions = [
    { name: "from Go to ours", put: putInGo, asked: OURS },
    { name: "from ours to Go", put: putInOurs, asked: GO },
  ] as const;

  for (const { name, put, asked } of directions) {
    it(`pass a manifest ${name} by tag and by digest, with GET and HEAD`, async () => {
      const { digest, bytes, tag } = await put("manifests");
      for (const reference of [tag, digest]) {
        for (const method of ["HEAD", "GET"]) {
          const answer = await pullPassed(asked, "manifests", reference, { method });
          assert.equal(answer.status, 200, `${method} ${reference}: ${answer.body}`);
          assert.equal(answer.headers.get("content-type"), MANIFEST);
          assert.equal(answer.headers.get("content-length"), String(bytes.length));
          assert.equal(answer.headers.get("docker-content-digest"), digest);
          assert.deepEqual(answer.body, method === "GET" ? bytes : Buffer.alloc(0));
        }
      }
    });

    it(`pass a blob ${name} with GET, HEAD and every form of a range`, async () => {
      const { digest, bytes } = await put("blobs");
      const whole = await pullPassed(asked, "blobs", digest);
      assert.equal(whole.status, 200, String(whole.body));
      assert.deepEqual(whole.body, bytes);
      assert.equal(whole.headers.get("content-length"), String(bytes.length));
      const head = await pullPassed(asked, "blobs", digest, { method: "HEAD" });
      assert.equal(head.status, 200);
      assert.equal(head.headers.get("content-length"), String(bytes.length));
      const last = bytes.length - 1;
      for (const [range, from, to] of [
        ["bytes=0-", 0, last],
        ["bytes=10-19", 10, 19],
        ["bytes=100000-", 100_000, last],
        ["bytes=-7", bytes.length - 7, last],
        [`bytes=5-${bytes.length * 2}`, 5, last],
      ] as const) {
        const part = await pullPassed(asked, "blobs", digest, { range });
        assert.equal(part.status, 206, `${range}: ${part.status}`);
        assert.equal(part.headers.get("content-range"), `bytes ${from}-${to}/${bytes.length}`);
        assert.deepEqual(part.body, bytes.subarray(from, to + 1), range);
      }
    });

    it(`pass a blob ${name} from its one holder to many at once`, async () => {
      const { digest, bytes } = await put("blobs");
      const answers = await Promise.all(Array.from({ length: 12 }, () => pullPassed(asked, "blobs", digest)));
      for (const { status, body } of answers) {
        assert.equal(status, 200, String(body));
        assert.deepEqual(body, bytes);
      }
    });

    it(`answer 404 ${name} for what nobody has`, async () => {
      for (const [kind, reference] of [
        ["blobs", newBlob().digest],
        ["manifests", newManifest().digest],
        ["manifests", "nobody-has-this"],
      ] as const) {
        const answer = await pull(asked, kind, reference);
        assert.equal(answer.status, 404);
      }
    });
  }

  it("never let a wrong answer of Go's registry pass as good", async () => {
    try {
      for (const fault of ["no length", "no digest", "no type", "wrong digest", "ignores range"]) {
        for (const kind of ["manifests", "blobs"] as const) {
          const { digest, bytes } = await putInGo(kind);
          await peer.request({ op: "fault", keys: [fault] });
          const range = kind === "blobs" ? { range: "bytes=1000-" } : {};
          const answer = await pull(OURS, kind, digest, range);
          const expected = kind === "blobs" ? bytes.subarray(1000) : bytes;
          if (answer.status === 404) continue;
          assert.equal(answer.status, kind === "blobs" ? 206 : 200, `${kind} with ${fault}`);
          assert.deepEqual(answer.body, expected, `${kind} with ${fault}`);
        }
      }
    } finally {
      await peer.request({ op: "fault", keys: [""] });
    }
  });

  it("break off rather than finish a blob with wrong or missing bytes", async () => {
    try {
      for (const fault of ["wrong bytes", "cut"]) {
        const { digest, bytes } = await putInGo("blobs");
        await peer.request({ op: "fault", keys: [fault] });
        const body = await pull(OURS, "blobs", digest).then(
          (answer) => (answer.status === 200 ? answer.body : undefined),
          () => undefined,
        );
        if (body !== undefined) assert.deepEqual(body, bytes, fault);
      }
    } finally {
      await peer.request({ op: "fault", keys: [""] });
    }
  });
});
