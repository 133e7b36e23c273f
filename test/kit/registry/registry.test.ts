// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { get, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { get as getSecure } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { digestHex, MANIFEST_MEDIA_TYPES } from "#oci";
import { createKeyPair, issueAuthority, issueLeaf } from "#pki";
import { type ImageLayout, type ImageObject, makeImage } from "../image-maker/index.ts";
import {
  isDebianRegistryInstalled,
  type Registry,
  type RegistryImplementation,
  startRegistry,
} from "./index.ts";

const REPOSITORY = "team/app";
const ACCEPT = { accept: MANIFEST_MEDIA_TYPES.join(", ") };
const never = new AbortController().signal;

let folder: string;
let layout: ImageLayout;
let layer: ImageObject;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "registry-test-"));
  layout = await makeImage(
    folder,
    { seed: "registry", layerSizesBytes: [300_000, 10], index: true },
    { signal: never },
  );
  layer = layout.objects.find((object) => object.kind === "layer") as ImageObject;
});
after(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** False when the connection ended before the body did. */
  readonly complete: boolean;
  readonly error?: Error;
}

async function ask(
  registry: Registry,
  path: string,
  options: { readonly method?: string; readonly headers?: Record<string, string> } = {},
): Promise<Answer> {
  const request = get(`${registry.origin}${path}`, {
    method: options.method ?? "GET",
    headers: { ...ACCEPT, ...options.headers },
    agent: false,
  });
  request.on("error", () => {}); // a reset is told to the request as well as to the response
  const [response] = (await once(request, "response")) as [IncomingMessage];
  const chunks: Buffer[] = [];
  let error: Error | undefined;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  } catch (caught) {
    error = caught as Error;
  }
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: Buffer.concat(chunks),
    complete: response.complete,
    ...(error === undefined ? {} : { error }),
  };
}

const implementations: RegistryImplementation[] = (await isDebianRegistryInstalled())
  ? ["debian", "node"]
  : ["node"];

for (const implementation of implementations) {
  describe(`registry ${implementation}`, () => {
    let registry: Registry;
    before(async () => {
      registry = await startRegistry({ implementation, signal: never });
      await registry.push(layout, "v1", REPOSITORY, { signal: never });
    });
    after(async () => {
      await registry[Symbol.asyncDispose]();
    });

    test("answers the version check and knows nothing else", async () => {
      assert.equal((await ask(registry, "/v2/")).status, 200);
      assert.equal((await ask(registry, `/v2/${REPOSITORY}/manifests/other`)).status, 404);
      assert.equal((await ask(registry, `/v2/absent/manifests/v1`)).status, 404);
      assert.equal((await ask(registry, `/v2/${REPOSITORY}/blobs/sha256:${"0".repeat(64)}`)).status, 404);
      assert.equal((await ask(registry, `/v2/absent/blobs/${layer.digest}`)).status, 404);
      assert.equal((await ask(registry, "/anything")).status, 404);
    });

    test("gives every pushed object back, byte for byte", async () => {
      for (const object of layout.objects) {
        const section = object.kind === "index" || object.kind === "manifest" ? "manifests" : "blobs";
        const answer = await ask(registry, `/v2/${REPOSITORY}/${section}/${object.digest}`);
        assert.equal(answer.status, 200);
        assert.equal(createHash("sha256").update(answer.body).digest("hex"), digestHex(object.digest));
        assert.equal(answer.headers["docker-content-digest"], object.digest);
        if (section === "manifests") assert.equal(answer.headers["content-type"], object.mediaType);
      }
    });

    test("resolves a tag by HEAD, without a body", async () => {
      const answer = await ask(registry, `/v2/${REPOSITORY}/manifests/v1?ns=example.com`, { method: "HEAD" });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers["docker-content-digest"], layout.root.digest);
      assert.equal(answer.headers["content-length"], String(layout.root.sizeBytes));
      assert.equal(answer.headers["content-type"], layout.root.mediaType);
      assert.equal(answer.body.length, 0);
      assert.equal(registry.requests().at(-1)?.ns, "example.com");
    });

    test("serves ranges", async () => {
      const whole = await readFile(layout.blobPath(layer.digest));
      const path = `/v2/${REPOSITORY}/blobs/${layer.digest}`;
      for (const [range, first, last] of [
        ["bytes=0-0", 0, 0],
        ["bytes=1000-1999", 1000, 1999],
        ["bytes=250000-", 250_000, layer.sizeBytes - 1],
        ["bytes=-5", layer.sizeBytes - 5, layer.sizeBytes - 1],
      ] as const) {
        const answer = await ask(registry, path, { headers: { range } });
        assert.equal(answer.status, 206);
        assert.equal(answer.headers["content-range"], `bytes ${first}-${last}/${layer.sizeBytes}`);
        assert.deepEqual(answer.body, whole.subarray(first, last + 1));
      }
      const beyond = await ask(registry, path, { headers: { range: `bytes=${layer.sizeBytes}-` } });
      assert.equal(beyond.status, 416);
    });

    test("refuses a blob that does not match its digest, and a manifest whose blobs are missing", async () => {
      const start = await ask(registry, `/v2/${REPOSITORY}/blobs/uploads/`, { method: "POST" });
      assert.equal(start.status, 202);
      const location = new URL(start.headers.location as string, registry.origin);
      location.searchParams.set("digest", `sha256:${"0".repeat(64)}`);
      const finish = await fetch(location, { method: "PUT", body: "not that" });
      assert.equal(finish.status, 400);
      await finish.arrayBuffer();
      const manifest = layout.objects.find((object) => object.kind === "manifest") as ImageObject;
      const put = await fetch(`${registry.origin}/v2/elsewhere/manifests/v1`, {
        method: "PUT",
        headers: { "content-type": manifest.mediaType },
        body: await readFile(layout.blobPath(manifest.digest)),
      });
      assert.equal(put.status, 400);
      await put.arrayBuffer();
    });

    test("counts exactly the bytes that a client got", async () => {
      const client = "127.0.0.1";
      const before = registry.bytesServed(client);
      const path = `/v2/${REPOSITORY}/blobs/${layer.digest}`;
      await ask(registry, path);
      await ask(registry, path, { headers: { range: "bytes=10-19" } });
      await ask(registry, path, { method: "HEAD" });
      assert.equal(registry.bytesServed(client) - before, layer.sizeBytes + 10);
      assert.equal(registry.bytesServed("127.0.0.99"), 0);
      const [get, range, head] = registry.requests().slice(-3);
      assert.deepEqual(
        [get, range, head].map((record) => [record?.method, record?.status, record?.bytes, record?.range]),
        [
          ["GET", 200, layer.sizeBytes, undefined],
          ["GET", 206, 10, "bytes=10-19"],
          ["HEAD", 200, 0, undefined],
        ],
      );
    });

    test("pushing the same image again is accepted", async () => {
      await registry.push(layout, "v2", REPOSITORY, { signal: never });
      const answer = await ask(registry, `/v2/${REPOSITORY}/manifests/v2`, { method: "HEAD" });
      assert.equal(answer.headers["docker-content-digest"], layout.root.digest);
    });

    test("fails in the way it is told to, as often as it is told to", async () => {
      const path = `/v2/${REPOSITORY}/blobs/${layer.digest}`;
      const match = (request: { readonly path: string }): boolean => request.path === path;
      const whole = await readFile(layout.blobPath(layer.digest));
      const failing = async (fault: Parameters<Registry["fail"]>[0]["fault"]): Promise<Answer> => {
        using _rule = registry.fail({ match, fault, times: 1 });
        return await ask(registry, path);
      };
      const cut = await failing({ kind: "cut", afterBytes: 1234 });
      assert.deepEqual([cut.status, cut.body.length, cut.complete], [200, 1234, false]);
      const reset = await failing({ kind: "reset", afterBytes: 1234 });
      assert.equal(reset.complete, false);
      const status = await failing({ kind: "status", status: 429, headers: { "retry-after": "1" } });
      assert.deepEqual([status.status, status.headers["retry-after"]], [429, "1"]);
      const chunked = await failing({ kind: "no-content-length" });
      assert.deepEqual([chunked.headers["content-length"], chunked.body.length], [undefined, whole.length]);
      const corrupt = await failing({ kind: "corrupt" });
      assert.equal(corrupt.body.length, whole.length);
      assert.notDeepEqual(corrupt.body, whole);
      const slow = await failing({ kind: "slow", bytesPerSecond: 50_000_000 });
      assert.deepEqual(slow.body, whole);
      const late = await failing({ kind: "late", delayMs: 20 });
      assert.deepEqual([late.status, late.body], [200, whole]);
      assert.deepEqual((await ask(registry, path)).body, whole);
    });

    test("can hang before and within an answer, and still ends", async () => {
      const path = `/v2/${REPOSITORY}/blobs/${layer.digest}`;
      await using hanging = await startRegistry({ implementation: "node", signal: never });
      await hanging.push(layout, "v1", REPOSITORY, { signal: never });
      hanging.fail({ match: () => true, fault: { kind: "hang" }, times: 1 });
      hanging.fail({ match: () => true, fault: { kind: "stall", afterBytes: 100 }, times: 1 });
      const silent = get(`${hanging.origin}${path}`, { agent: false });
      const silentEnd = once(silent, "error");
      await once(silent, "socket");
      while (hanging.requests().length < 1) await new Promise(setImmediate);
      const stalled = get(`${hanging.origin}${path}`, { agent: false });
      const [response] = (await once(stalled, "response")) as [IncomingMessage];
      const [first] = (await once(response, "data")) as [Buffer];
      assert.equal(first.length, 100);
      const stalledEnd = once(response, "error");
      await hanging[Symbol.asyncDispose]();
      await Promise.all([silentEnd, stalledEnd]);
    });

    test("speaks TLS with the certificate it is given", async () => {
      const nowMs = Date.now();
      const issue = { validityMs: 3_600_000, nowMs };
      const authority = await issueAuthority({
        ...issue,
        commonName: "test",
        key: await createKeyPair({ bits: 2048 }),
      });
      const leaf = await issueLeaf(authority, {
        ...issue,
        usage: "server",
        commonName: "registry",
        ipAddresses: ["127.0.0.1"],
        key: await createKeyPair({ bits: 2048 }),
      });
      const tls = { certificate: leaf.certificatePem, key: leaf.privateKeyPem };
      await using secure = await startRegistry({ implementation, tls, signal: never });
      assert.match(secure.origin, /^https:/);
      const trusted = getSecure(`${secure.origin}/v2/`, { ca: authority.certificatePem, agent: false });
      const [response] = (await once(trusted, "response")) as [IncomingMessage];
      response.resume();
      assert.equal(response.statusCode, 200);
      const [refusal] = (await once(getSecure(`${secure.origin}/v2/`, { agent: false }), "error").catch(
        (error) => [error],
      )) as [Error];
      assert.match(refusal.message, /verify|self.signed/i);
    });

    for (const scheme of ["basic", "bearer"] as const) {
      test(`asks for ${scheme} credentials`, async () => {
        const authentication = { scheme, username: "user", password: "pass" };
        await using closed = await startRegistry({ implementation, authentication, signal: never });
        await closed.push(layout, "v1", REPOSITORY, { signal: never });
        const path = `/v2/${REPOSITORY}/manifests/v1`;
        const refused = await ask(closed, path);
        assert.equal(refused.status, 401);
        const challenge = refused.headers["www-authenticate"] as string;
        const basic = `Basic ${Buffer.from("user:pass").toString("base64")}`;
        assert.equal((await ask(closed, path, { headers: { authorization: "Basic eDp5" } })).status, 401);
        if (scheme === "basic") {
          assert.match(challenge, /^Basic /);
          assert.equal((await ask(closed, path, { headers: { authorization: basic } })).status, 200);
          return;
        }
        assert.match(
          challenge,
          new RegExp(
            `^Bearer realm="${closed.origin}/token",service=".+",scope="repository:${REPOSITORY}:pull"$`,
          ),
        );
        assert.equal((await ask(closed, "/token")).status, 401);
        const { token } = JSON.parse(
          (await ask(closed, "/token", { headers: { authorization: basic } })).body.toString(),
        );
        assert.equal(
          (await ask(closed, path, { headers: { authorization: `Bearer ${token}` } })).status,
          200,
        );
      });
    }
  });
}
