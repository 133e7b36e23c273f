// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { sleep } from "#async";
import { type ApiServer, startApiServer } from "#kit/api-server";
import { silentLogger } from "#log";
import { createKeyPair, type KeyPair } from "#pki";
import { readFlags } from "./flags.ts";
import { openExtension } from "./wire.ts";

const OWN = "extension-registry-spegel-abcde";
const TOKEN = "token-of-the-extension";
const LABELS = {
  name: "registry-spegel-webhook-server",
  "managed-by": "secrets-manager",
  "manager-identity": "gardener-extension-registry-spegel-webhook",
};

let key: Promise<KeyPair> | undefined;
const createKey = (): Promise<KeyPair> => {
  key ??= createKeyPair({ bits: 2048 });
  return key;
};

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** The answer of the readiness probe; status 0 while nothing listens. */
function readiness(address: string): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve) => {
    get(`http://${address}/readyz`, { agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => (body += text));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    }).on("error", () => resolve({ status: 0, body: "" }));
  });
}

async function until(
  address: string,
  holds: (answer: { status: number; body: string }) => boolean,
): Promise<string> {
  const signal = AbortSignal.timeout(50_000);
  for (;;) {
    const answer = await readiness(address);
    if (holds(answer)) return answer.body;
    await sleep(5, { signal });
  }
}

/** Starts the webhook alone; `started` resolves when it serves. */
async function start(
  seed: ApiServer,
  parts: AsyncDisposableStack,
): Promise<{ readonly health: string; readonly started: Promise<AsyncDisposable>; stop(): void }> {
  const directory = await mkdtemp(join(tmpdir(), "webhook-start-"));
  parts.defer(() => rm(directory, { recursive: true }));
  const kubeconfig = join(directory, "kubeconfig");
  await writeFile(kubeconfig, seed.kubeconfig({ token: TOKEN }));
  const health = `127.0.0.1:${await freePort()}`;
  const flags = await readFlags({
    argv: [
      `--kubeconfig=${kubeconfig}`,
      `--webhook-config-namespace=${OWN}`,
      "--webhook-config-server-host=127.0.0.1",
      "--webhook-config-server-port=0",
      `--health-bind-address=${health}`,
      "--metrics-bind-address=127.0.0.1:0",
      "--shutdown-delay-seconds=0",
      "--leader-election=false",
      "--disable-controllers=extension,heartbeat",
      "--bootstrapper-image=registry.example.org/b@sha256:aa",
      "--node-image=registry.example.org/n@sha256:bb",
    ],
    environment: {},
  });
  const stop = new AbortController();
  const started = openExtension(
    {
      logger: silentLogger,
      environment: {},
      signal: stop.signal,
      createKey,
      timing: { certificateIntervalMs: 20 },
    },
    flags,
  );
  parts.defer(async () => {
    stop.abort();
    await started.then((program) => program[Symbol.asyncDispose]()).catch(() => {});
  });
  return { health, started, stop: () => stop.abort() };
}

const startSeed = (parts: AsyncDisposableStack): Promise<ApiServer> =>
  startApiServer({
    users: [
      { name: "extension", token: TOKEN, rules: [{ apiGroups: ["*"], resources: ["*"], verbs: ["*"] }] },
    ],
  }).then((seed) => {
    parts.use(seed);
    seed.seed([{ apiVersion: "v1", kind: "Namespace", metadata: { name: OWN } }]);
    return seed;
  });

const causes = {
  "may not be read": {
    fault: { status: 403, message: "secrets is forbidden" },
    says: /secrets is forbidden/,
  },
  "cannot be read for a failure of the API server": { fault: { status: 500 }, says: /500/ },
  "come as nonsense": { fault: { body: "<html>" }, says: /not JSON/ },
  "are not answered for": { fault: "reset", says: /GET .*secrets failed/ },
} as const;
for (const [what, { fault, says }] of Object.entries(causes)) {
  test(`while its Secrets ${what}, the webhook is not ready and says why; afterwards it serves`, async () => {
    await using parts = new AsyncDisposableStack();
    const seed = await startSeed(parts);
    const injected = seed.faults.inject({ method: "GET", path: /secrets/ }, fault);
    const { health, started } = await start(seed, parts);
    const body = await until(health, ({ status, body }) => status === 503 && /yet: /.test(body));
    assert.match(body, /^the webhook has no certificate yet: /);
    assert.match(body, says);
    injected[Symbol.dispose]();
    await started;
    await until(health, ({ status }) => status === 200);
  });
}

test("a Secret of ours that somebody damaged is replaced, and one that is absent is made", async () => {
  await using parts = new AsyncDisposableStack();
  const seed = await startSeed(parts);
  const damaged = { "tls.crt": "bm8=", "tls.key": "bm8=" };
  seed.seed([
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "registry-spegel-webhook-server-damaged", namespace: OWN, labels: LABELS },
      type: "kubernetes.io/tls",
      data: damaged,
    } as never,
  ]);
  const { health, started } = await start(seed, parts);
  await started;
  await until(health, ({ status }) => status === 200);
  const servers = seed
    .list("Secret", OWN)
    .filter(({ metadata }) => metadata.labels?.["name"] === LABELS.name)
    .map(({ metadata }) => metadata.name);
  assert.ok(
    servers.some((name) => name !== "registry-spegel-webhook-server-damaged"),
    `${servers}`,
  );
});

test("a stop while it waits for its Secrets ends it", async () => {
  await using parts = new AsyncDisposableStack();
  const seed = await startSeed(parts);
  seed.faults.inject({ method: "GET", path: /secrets/ }, { status: 403 });
  const { health, started, stop } = await start(seed, parts);
  started.catch(() => {});
  await until(health, ({ status }) => status === 503);
  stop();
  await assert.rejects(started, { name: "AbortError" });
  assert.equal((await readiness(health)).status, 0);
});
