// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { sha256Digest } from "#oci";
import { createBasicAuth } from "./basic-auth.ts";
import { ask, openNode } from "./testing.ts";

const MANIFEST = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: {},
    layers: [],
  }),
);
const NOBODY = sha256Digest("nobody has this");
const NS = "ns=registry.example.test";
const MIRRORED = { "X-Spegel-Mirrored": "true" };

describe("openRegistryServer", () => {
  it("answers the ping and the probes, and 404 without a body to everything else", async () => {
    await using node = await openNode();
    assert.equal((await ask(`${node.url}/v2/`)).status, 200);
    assert.equal((await ask(`${node.url}/livez`)).status, 200);
    assert.equal((await ask(`${node.url}/readyz`)).status, 200);
    node.router.setReady(false);
    assert.equal((await ask(`${node.url}/readyz`)).status, 500);
    assert.equal((await ask(`${node.url}/v2`)).headers.location, "/v2/");
    const others = [
      ["GET", "/"],
      ["POST", "/v2/"],
      ["DELETE", `/v2/a/manifests/${NOBODY}?${NS}`],
      ["GET", "/v2/_catalog"],
      ["GET", `/v2/a/tags/list?${NS}`],
      ["GET", `/v2/a/blobs/uploads/?${NS}`],
      ["POST", "/livez"],
    ] as const;
    for (const [method, path] of others) {
      const answer = await ask(`${node.url}${path}`, { method });
      assert.deepEqual(
        [answer.status, answer.body.length, answer.headers["content-length"]],
        [404, 0, "0"],
        `${method} ${path}`,
      );
    }
  });

  it("serves a manifest with the headers of the distribution specification", async () => {
    await using node = await openNode();
    const digest = await node.hold(MANIFEST);
    await node.store.tag("registry.example.test/lib/app:1", digest, { signal: AbortSignal.timeout(5000) });
    for (const reference of [digest, "1"]) {
      for (const method of ["GET", "HEAD"]) {
        const answer = await ask(`${node.url}/v2/lib/app/manifests/${reference}?${NS}`, { method });
        assert.equal(answer.status, 200);
        assert.equal(answer.headers["content-type"], "application/vnd.oci.image.manifest.v1+json");
        assert.equal(answer.headers["content-length"], String(MANIFEST.length));
        assert.equal(answer.headers["docker-content-digest"], digest);
        assert.equal(answer.headers["oci-namespace"], "registry.example.test");
        assert.equal(answer.headers["accept-ranges"], undefined);
        assert.deepEqual(answer.body, method === "GET" ? MANIFEST : Buffer.alloc(0));
      }
    }
  });

  it("serves blobs whole and in parts, whatever their first byte is", async () => {
    await using node = await openNode();
    for (const first of ["{", "[", '"', "7", " ", "\u001f", "{}"]) {
      const bytes = Buffer.concat([Buffer.from(first), randomBytes(5000)]);
      const url = `${node.url}/v2/lib/app/blobs/${await node.hold(bytes)}?${NS}`;
      const whole = await ask(url);
      assert.deepEqual([whole.status, whole.headers["content-type"]], [200, "application/octet-stream"]);
      assert.equal(whole.headers["accept-ranges"], "bytes");
      assert.ok(whole.body.equals(bytes));
      for (const [range, start, end] of [
        ["bytes=1-3", 1, 3],
        ["bytes=4990-", 4990, bytes.length - 1],
        ["bytes=-10", bytes.length - 10, bytes.length - 1],
        ["bytes=0-99999", 0, bytes.length - 1],
      ] as const) {
        const part = await ask(url, { headers: { Range: range } });
        assert.equal(part.status, 206);
        assert.equal(part.headers["content-range"], `bytes ${start}-${end}/${bytes.length}`);
        assert.ok(part.body.equals(bytes.subarray(start, end + 1)));
        const head = await ask(url, { method: "HEAD", headers: { Range: range } });
        assert.deepEqual([head.status, head.headers["content-length"]], [206, String(end - start + 1)]);
      }
    }
  });

  it("answers 400 to a range beyond the end and 404 to one it cannot read", async () => {
    await using node = await openNode();
    const url = `${node.url}/v2/lib/app/blobs/${await node.hold(Buffer.from("twenty bytes of blob"))}?${NS}`;
    assert.deepEqual((await ask(url, { headers: { Range: "bytes=20-" } })).status, 400);
    for (const range of ["bytes=0-1,3-4", "items=0-1", "bytes=-0", "bytes=3-2", "bytes"]) {
      const answer = await ask(url, { headers: { Range: range } });
      assert.deepEqual([answer.status, answer.body.length], [404, 0], range);
    }
  });

  it("serves an empty blob", async () => {
    await using node = await openNode();
    const answer = await ask(`${node.url}/v2/lib/app/blobs/${await node.hold(Buffer.alloc(0))}?${NS}`);
    assert.deepEqual([answer.status, answer.headers["content-length"], answer.body.length], [200, "0", 0]);
  });

  it("serves a layer that is itself a manifest as a blob", async () => {
    await using node = await openNode();
    const answer = await ask(`${node.url}/v2/lib/app/blobs/${await node.hold(MANIFEST)}?${NS}`);
    assert.deepEqual([answer.status, answer.headers["content-type"]], [200, "application/octet-stream"]);
    assert.ok(answer.body.equals(MANIFEST));
  });

  it("answers another node from local content only, with byte-exact errors", async () => {
    await using node = await openNode();
    const blob = await node.hold(randomBytes(100));
    const cases = [
      [
        `manifests/gone`,
        "MANIFEST_UNKNOWN",
        "could not get digest for image tag registry.example.test/lib/app:gone",
      ],
      [`manifests/${NOBODY}`, "MANIFEST_UNKNOWN", `could not get manifest ${NOBODY}`],
      [`manifests/${blob}`, "MANIFEST_UNKNOWN", `could not get manifest ${blob}`],
      [`blobs/${NOBODY}`, "BLOB_UNKNOWN", `could not get blob ${NOBODY}`],
    ] as const;
    for (const [path, code, message] of cases) {
      const url = `${node.url}/v2/lib/app/${path}?${NS}`;
      const expected = `{"errors":[{"code":"${code}","message":"${message}"}]}`;
      const answer = await ask(url, { headers: MIRRORED });
      assert.deepEqual([answer.status, answer.headers["content-type"]], [404, "application/json"]);
      assert.equal(answer.body.toString(), expected);
      const head = await ask(url, { method: "HEAD", headers: MIRRORED });
      assert.deepEqual([head.headers["content-length"], head.body.length], [String(expected.length), 0]);
    }
  });

  it("answers 404 without a body to malformed names, digests, tags and registries", async () => {
    await using node = await openNode();
    const hex = "a".repeat(64);
    const paths = [
      `/v2/lib/app/manifests/1`, // no ns
      `/v2/lib/app/manifests/1?ns=`,
      `/v2/lib/app/manifests/1?ns=${encodeURIComponent("evil host/x")}`,
      `/v2/lib/app/manifests/1?ns=${"r".repeat(300)}`,
      `/v2/lib/app/manifests/${"t".repeat(129)}?${NS}`,
      `/v2/lib/app/manifests/.tag?${NS}`,
      `/v2/lib/app/blobs/tag?${NS}`,
      `/v2/lib/app/blobs/sha256:${hex.slice(1)}?${NS}`,
      `/v2/lib/app/blobs/sha256:${hex.toUpperCase()}?${NS}`,
      `/v2/lib/app/blobs/md5:${hex}?${NS}`,
      `/v2/Lib/app/manifests/1?${NS}`,
      `/v2/lib___app/manifests/1?${NS}`,
      `/v2/${"n".repeat(300)}/manifests/1?${NS}`,
      `/v2/lib/../manifests/1?${NS}`,
      `/v2/lib//manifests/1?${NS}`,
      `/v2/lib/app/manifests/%E0%A4%A?${NS}`,
      `/v2/manifests/1?${NS}`,
      `/v2/lib/app/manifests/1/2?${NS}`,
    ];
    for (const path of paths) {
      const answer = await ask(`${node.url}${path}`);
      assert.deepEqual([answer.status, answer.body.length], [404, 0], path);
    }
  });

  it("refuses names that a filter matches, but serves them by digest", async () => {
    const filters = {
      mirroredRegistries: ["https://registry.example.test"],
      registryFilters: [":latest$", "private/"],
    };
    await using node = await openNode({ filters });
    const digest = await node.hold(MANIFEST);
    for (const tag of ["latest", "1"]) {
      await node.store.tag(`registry.example.test/lib/app:${tag}`, digest, {
        signal: AbortSignal.timeout(5000),
      });
    }
    const status = async (path: string) => (await ask(`${node.url}/v2/${path}`)).status;
    assert.equal(await status(`lib/app/manifests/latest?${NS}`), 404);
    assert.equal(await status(`lib/app/manifests/1?${NS}`), 200);
    assert.equal(await status(`lib/app/manifests/${digest}?${NS}`), 200);
    assert.equal(await status(`private/app/manifests/${digest}?${NS}`), 404);
    assert.equal(await status(`lib/app/manifests/${digest}?ns=other.example.test`), 404);
  });

  it("protects everything below /v2/ when credentials are set, but not the probes", async () => {
    const auth = createBasicAuth("user", "secret");
    await using node = await openNode({ auth });
    const status = async (path: string, authorization?: string) =>
      ask(`${node.url}${path}`, authorization === undefined ? {} : { headers: { authorization } });
    const refused = await status("/v2/");
    assert.equal(refused.status, 401);
    assert.equal(
      refused.body.toString(),
      '{"errors":[{"code":"UNAUTHORIZED","message":"invalid credentials"}]}',
    );
    assert.equal(refused.headers["www-authenticate"], undefined);
    assert.equal((await status("/v2/", createBasicAuth("user", "wrong").header)).status, 401);
    assert.equal((await status("/v2/", createBasicAuth("wrong", "secret").header)).status, 401);
    assert.equal((await status("/v2/", auth.header)).status, 200);
    assert.equal((await status("/livez")).status, 200);
  });

  it("ignores credentials when none are set", async () => {
    await using node = await openNode();
    assert.equal((await ask(`${node.url}/v2/`, { headers: { authorization: "Basic Og==" } })).status, 200);
  });
});
