// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { type ApiServer, startApiServer } from "#kit/api-server";
import {
  createKubeClient,
  type KubeClient,
  type KubeErrorCode,
  LEASES,
  NODES,
  parseKubeConfig,
  SECRETS,
  type TransportOptions,
} from "./index.ts";

const signal = new AbortController().signal;
const cancel = { signal };
let server: ApiServer;
let client: KubeClient;

before(async () => {
  server = await startApiServer();
  client = await connect(server.kubeconfig());
});
after(async () => {
  await client[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});
beforeEach(() => server.clearRequests());

async function connect(kubeconfig: string, options: Partial<TransportOptions> = {}): Promise<KubeClient> {
  const connection = await parseKubeConfig(kubeconfig, { directory: "/", source: "test" });
  return createKubeClient(connection, { userAgent: "test", ...options });
}

const secret = (name: string, data: Record<string, string> = {}) => ({
  metadata: { name, namespace: "default" },
  data,
});
const failsWith = (promise: Promise<unknown>, code: KubeErrorCode, message?: RegExp) =>
  assert.rejects(promise, (error: Error & { code?: string }) => {
    assert.equal(error.code, code, error.message);
    if (message) assert.match(error.message, message);
    return true;
  });

test("objects are created, read, changed and deleted over verified TLS", async () => {
  const created = await client.create(SECRETS, secret("a", { k: "djE=" }), cancel);
  assert.equal(created.kind, "Secret");
  const name = { namespace: "default", name: "a" };
  assert.deepEqual(await client.get(SECRETS, name, cancel), created);
  const merged = await client.mergePatch(SECRETS, name, { data: { k: null, l: "djI=" } }, cancel);
  assert.deepEqual(merged.data, { l: "djI=" });
  const patched = await client.jsonPatch(
    SECRETS,
    name,
    [{ op: "add", path: "/data/m", value: "djM=" }],
    cancel,
  );
  assert.deepEqual(patched.data, { l: "djI=", m: "djM=" });
  const replaced = await client.replace(SECRETS, { ...patched, data: {} }, cancel);
  assert.deepEqual(replaced.data, {});
  assert.equal(await client.delete(SECRETS, name, cancel), true);
  assert.equal(await client.delete(SECRETS, name, cancel), false);
  assert.equal(await client.find(SECRETS, name, cancel), undefined);
});

test("status is patched through its own path", async () => {
  server.seed([{ apiVersion: "v1", kind: "Node", metadata: { name: "n" } }]);
  await client.mergePatchStatus(NODES, { name: "n" }, { status: { phase: "Running" } }, cancel);
  assert.deepEqual((await client.get(NODES, { name: "n" }, cancel)) as object, {
    ...server.get("Node", "n"),
  });
  assert.deepEqual(server.get("Node", "n")?.["status"], { phase: "Running" });
});

test("each refusal of the server has its code", async () => {
  await client.create(SECRETS, secret("there"), cancel);
  await failsWith(
    client.create(SECRETS, secret("there"), cancel),
    "KUBE_ALREADY_EXISTS",
    /secrets "there" already exists/,
  );
  await failsWith(client.get(SECRETS, { namespace: "default", name: "absent" }, cancel), "KUBE_NOT_FOUND");
  await failsWith(client.create(SECRETS, secret("Not_A_Name"), cancel), "KUBE_INVALID");
  const stale = { metadata: { resourceVersion: "1" } };
  await failsWith(
    client.mergePatch(SECRETS, { namespace: "default", name: "there" }, stale, cancel),
    "KUBE_CONFLICT",
  );
  for (const [status, code] of [
    [401, "KUBE_UNAUTHORIZED"],
    [403, "KUBE_FORBIDDEN"],
    [410, "KUBE_GONE"],
    [415, "KUBE_INVALID"],
    [500, "KUBE_UNAVAILABLE"],
    [503, "KUBE_UNAVAILABLE"],
    [504, "KUBE_TIMEOUT"],
  ] as const) {
    server.faults.inject({ path: /secrets/, times: 1 }, { status, message: "because" });
    await failsWith(
      client.list(SECRETS, {}, cancel),
      code,
      new RegExp(`GET /api/v1/secrets was answered with ${status}: because`),
    );
  }
});

test("a user sees only what its rules allow", async () => {
  using _user = server.addUser({
    name: "reader",
    token: "reader",
    rules: [{ apiGroups: [""], resources: ["secrets"], verbs: ["get"], resourceNames: ["readable"] }],
  });
  await client.create(SECRETS, secret("readable"), cancel);
  await using reader = await connect(server.kubeconfig({ token: "reader" }));
  await reader.get(SECRETS, { namespace: "default", name: "readable" }, cancel);
  await failsWith(
    reader.get(SECRETS, { namespace: "default", name: "other" }, cancel),
    "KUBE_FORBIDDEN",
    /cannot get/,
  );
  await failsWith(reader.list(SECRETS, {}, cancel), "KUBE_FORBIDDEN");
  await using unknown = await connect(server.kubeconfig({ token: "unknown" }));
  await failsWith(unknown.list(SECRETS, {}, cancel), "KUBE_UNAUTHORIZED");
});

test("lists are read page by page under one version, and items carry their type", async () => {
  for (let index = 0; index < 7; index++) await client.create(SECRETS, secret(`page-${index}`), cancel);
  server.clearRequests();
  const list = await client.list(SECRETS, { namespace: "default", pageSize: 3 }, cancel);
  assert.deepEqual(
    list.items.map((item) => item.metadata.name).filter((name) => name.startsWith("page-")),
    [0, 1, 2, 3, 4, 5, 6].map((index) => `page-${index}`),
  );
  assert.ok(list.items.every((item) => item.kind === "Secret" && item.apiVersion === "v1"));
  assert.equal(
    server.requests.filter((request) => request.verb === "list").length,
    Math.ceil(list.items.length / 3),
  );
});

test("a token file is read again after 401 and after a minute", async () => {
  const directory = await mkdtemp(join(tmpdir(), "token-"));
  try {
    const tokenFile = join(directory, "token");
    let nowMs = 0;
    await writeFile(tokenFile, "first\n");
    const first = server.addUser({ name: "first", token: "first", rules: "admin" });
    await using reader = await connect(server.kubeconfig({ tokenFile }), { now: () => nowMs });
    await reader.list(SECRETS, {}, cancel);
    using _second = server.addUser({ name: "second", token: "second", rules: "admin" });
    await writeFile(tokenFile, "second");
    first[Symbol.dispose]();
    await reader.list(SECRETS, {}, cancel); // 401 with the first, then 200 with the second
    using _third = server.addUser({ name: "third", token: "third", rules: "admin" });
    await writeFile(tokenFile, "third");
    await reader.list(SECRETS, {}, cancel);
    nowMs += 60_000;
    await reader.list(SECRETS, {}, cancel);
    assert.deepEqual(
      server.requests.map(({ user, status }) => `${user} ${status}`),
      ["first 200", " 401", "second 200", "second 200", "third 200"],
    );
    await writeFile(tokenFile, "");
    nowMs += 60_000;
    await failsWith(reader.list(SECRETS, {}, cancel), "KUBE_UNAUTHORIZED", /holds no token/);
    await rm(tokenFile);
    await failsWith(reader.list(SECRETS, {}, cancel), "KUBE_UNAUTHORIZED", /cannot be read/);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("429 with Retry-After is obeyed, and given up after three tries", async () => {
  server.faults.inject({ path: /secrets/, times: 2 }, { status: 429, retryAfterSeconds: 0 });
  await client.list(SECRETS, {}, cancel);
  server.faults.inject({ path: /secrets/, times: 3 }, { status: 429, retryAfterSeconds: 0 });
  await failsWith(client.list(SECRETS, {}, cancel), "KUBE_THROTTLED");
});

test("a broken connection, silence and nonsense are errors of their own", async () => {
  await using hasty = await connect(server.kubeconfig(), { timeoutMs: 50 });
  await using frugal = await connect(server.kubeconfig(), { maxResponseBytes: 200 });
  {
    using _broken = server.faults.inject({ path: /secrets/ }, "reset");
    await failsWith(client.list(SECRETS, {}, cancel), "KUBE_UNAVAILABLE");
  }
  using _hang = server.faults.inject({ path: /leases/ }, "hang");
  await failsWith(hasty.list(LEASES, {}, cancel), "KUBE_TIMEOUT", /within 50 ms/);
  server.faults.inject({ path: /secrets/, times: 1 }, { body: " ".repeat(201) });
  await failsWith(frugal.list(SECRETS, {}, cancel), "KUBE_RESPONSE_INVALID", /larger than 200 bytes/);
  for (const body of [
    "",
    "{",
    "null",
    "[]",
    "{}",
    '{"metadata":{},"items":[]}',
    '{"metadata":{"resourceVersion":"1"},"items":[null]}',
  ]) {
    server.faults.inject({ path: /nodes/, times: 1 }, { body });
    await failsWith(client.list(NODES, {}, cancel), "KUBE_RESPONSE_INVALID");
  }
  server.faults.inject({ path: /nodes/, times: 1 }, { body: "[]" });
  await failsWith(client.get(NODES, { name: "n" }, cancel), "KUBE_RESPONSE_INVALID");
});

test("a server that is not there, or is another one, is unavailable", async () => {
  const idle = createServer();
  await new Promise<void>((resolve) => idle.listen(0, "127.0.0.1", resolve));
  const { port } = idle.address() as AddressInfo;
  await new Promise((resolve) => idle.close(resolve));
  const gone = server.kubeconfig().replace(/127\.0\.0\.1:\d+/, `127.0.0.1:${port}`);
  await using nowhere = await connect(gone);
  await failsWith(nowhere.list(SECRETS, {}, cancel), "KUBE_UNAVAILABLE");
  await using other = await startApiServer();
  const wrongAuthority = server.kubeconfig().replace(/127\.0\.0\.1:\d+/, new URL(other.url).host);
  await using stranger = await connect(wrongAuthority);
  await failsWith(stranger.list(SECRETS, {}, cancel), "KUBE_UNAVAILABLE");
  assert.equal(other.requests.length, 0);
});

test("the caller's abort ends a request with the caller's reason", async () => {
  using _hang = server.faults.inject({ path: /leases/ }, "hang");
  const abort = new AbortController();
  const reason = new Error("no longer wanted");
  const pending = client.list(LEASES, {}, { signal: abort.signal });
  abort.abort(reason);
  await assert.rejects(pending, (error) => error === reason);
});

test("a mistake in the namespace is refused before anything is sent", async () => {
  server.clearRequests();
  await assert.rejects(client.get(SECRETS, { name: "x" }, cancel), TypeError);
  await assert.rejects(client.get(NODES, { namespace: "default", name: "x" }, cancel), TypeError);
  await assert.rejects(client.get(SECRETS, { namespace: "", name: "x" }, cancel), TypeError);
  assert.equal(server.requests.length, 0);
});

test("a 404 that names no object is not taken for its absence", async () => {
  const secret = { namespace: "default", name: "x" };
  for (let times = 0; times < 3; times++) server.faults.inject({ times: 1 }, { status: 404 });
  await assert.rejects(client.find(SECRETS, secret, cancel), {
    code: "KUBE_UNAVAILABLE",
    message: /does not serve it \(yet\)/,
  });
  await failsWith(client.delete(SECRETS, secret, cancel), "KUBE_UNAVAILABLE");
  await failsWith(client.mergePatch(SECRETS, secret, {}, cancel), "KUBE_UNAVAILABLE");
  assert.equal(await client.find(SECRETS, secret, cancel), undefined);
});

test("names are encoded, so that none can address another object", async () => {
  await failsWith(
    client.get(SECRETS, { namespace: "default", name: "../../nodes" }, cancel),
    "KUBE_NOT_FOUND",
  );
  assert.equal(server.requests.at(-1)?.path, "/api/v1/namespaces/default/secrets/..%2F..%2Fnodes");
});
