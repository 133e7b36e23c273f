// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { request as httpsRequest } from "node:https";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { MAX_REVIEW_BYTES } from "#http";
import {
  type ApiObject,
  type ApiServer,
  type PolicyRule,
  readManifests,
  startApiServer,
  valueAt,
} from "#kit/api-server";
import { createKubeClient, type KubeClient, parseKubeConfig, type Resource } from "#kube";
import { silentLogger } from "#log";
import { createKeyPair, type KeyPair, parseCertificates } from "#pki";
import { readFlags } from "./flags.ts";
import { openAdmission } from "./wire.ts";

const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));
const COMPONENT = "gardener-extension-registry-spegel-admission";
const OWN = "garden";
const OWNER = "extension-registry-spegel";
const TOKEN = "token-of-the-admission";
const NAMESPACE = "garden-foo";
const signal = AbortSignal.timeout(120_000);
const cancel = { signal };
const SHOOTS: Resource<ApiObject> = {
  group: "core.gardener.cloud",
  version: "v1beta1",
  plural: "shoots",
  kind: "Shoot",
  namespaced: true,
};
const LABELS = { "extensions.extensions.gardener.cloud/registry-spegel": "true" };

let keys: KeyPair[];
let directory: string;
let example: ApiObject;
let rules: { readonly garden: PolicyRule[]; readonly runtime: PolicyRule[] };

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "admission-"));
  keys = await Promise.all([1, 2, 3, 4].map(() => createKeyPair({ bits: 2048 })));
  const read = async (path: string): Promise<ApiObject> =>
    (await readManifests(new URL(`../../${path}`, import.meta.url)))[0] as unknown as ApiObject;
  example = await read("example/shoot.yaml");
  const chart = `charts/${COMPONENT}`;
  rules = {
    garden: valueAt(await read(`${chart}/application/rbac/cluster-role.yaml`), "rules"),
    runtime: valueAt<PolicyRule[]>(await read(`${chart}/runtime/rbac/role.yaml`), "rules").map((rule) => ({
      ...rule,
      namespaces: [OWN],
    })),
  };
});
after(() => rm(directory, { recursive: true }));

let parts: AsyncDisposableStack;
let garden: ApiServer;
let runtime: ApiServer;
/** Who may do everything in the virtual garden. */
let owner: KubeClient;

beforeEach(async () => {
  parts = new AsyncDisposableStack();
  const user = (own: PolicyRule[]) => [{ name: "admission", token: TOKEN, rules: own }];
  garden = parts.use(await startApiServer({ users: user(rules.garden), resources: [SHOOTS] }));
  runtime = parts.use(await startApiServer({ users: user(rules.runtime) }));
  const connection = await parseKubeConfig(garden.kubeconfig(), { directory: "/", source: "owner" });
  owner = parts.use(createKubeClient(connection, { userAgent: "owner" }));
  for (const name of [OWNER, NAMESPACE])
    garden.seed([{ apiVersion: "v1", kind: "Namespace", metadata: { name } }]);
  runtime.seed([{ apiVersion: "v1", kind: "Namespace", metadata: { name: OWN } }]);
  await writeFile(join(directory, "token"), TOKEN);
  // As Gardener's generic kubeconfig: the token is in a file that is replaced from time to time.
  await writeFile(join(directory, "garden"), garden.kubeconfig({ tokenFile: join(directory, "token") }));
  await writeFile(join(directory, "runtime"), runtime.kubeconfig({ token: TOKEN }));
});
afterEach(() => parts.disposeAsync());

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

function argumentsFor(port: number, change: readonly string[] = []): string[] {
  return [
    `--kubeconfig=${join(directory, "garden")}`,
    `--runtime-kubeconfig=${join(directory, "runtime")}`,
    "--webhook-config-mode=url",
    `--webhook-config-url=127.0.0.1:${port}`,
    `--webhook-config-namespace=${OWN}`,
    `--webhook-config-owner-namespace=${OWNER}`,
    "--webhook-config-server-host=127.0.0.1",
    `--webhook-config-server-port=${port}`,
    "--health-bind-address=127.0.0.1:0",
    "--metrics-bind-address=127.0.0.1:0",
    "--shutdown-delay-seconds=0",
    ...change,
  ];
}

async function start(change: readonly string[] = [], certificateIntervalMs = 60_000) {
  let index = 0;
  const open = async (port: number) =>
    openAdmission(
      {
        logger: silentLogger,
        environment: {},
        signal: new AbortController().signal,
        createKey: async () => keys[index++ % keys.length] as KeyPair,
        timing: { certificateIntervalMs, lease: { renewDeadlineMs: 500, retryPeriodMs: 50 } },
      },
      await readFlags({ argv: argumentsFor(port, change), environment: {} }),
    );
  for (;;) {
    try {
      return parts.use(await open(await freePort()));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    }
  }
}

async function eventually<T>(read: () => T | undefined): Promise<T> {
  for (;;) {
    const value = read();
    if (value !== undefined) return value;
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const configuration = (): ApiObject | undefined => garden.get("ValidatingWebhookConfiguration", COMPONENT);

function shoot(name: string, providerConfig?: object, labels: object = LABELS): ApiObject {
  const { spec } = example as unknown as { spec: object };
  const extensions = [{ type: "registry-spegel", ...(providerConfig && { providerConfig }) }];
  const metadata = { name, namespace: NAMESPACE, labels };
  return { ...example, metadata, spec: { ...spec, extensions } } as unknown as ApiObject;
}

const BAD = {
  apiVersion: "spegel.extensions.gardener.cloud/v1alpha1",
  kind: "SpegelConfig",
  registryPort: 10250,
};

function fetchText(address: string, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    get(`http://${address}${path}`, { agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    }).on("error", reject);
  });
}

describe("the admission between a virtual garden and its runtime cluster", { timeout: 120_000 }, () => {
  it("judges Shoots with the extension, and sees no others", async () => {
    const program = await start();
    await eventually(configuration);
    await owner.create(SHOOTS, shoot("plain"), cancel);
    await owner.create(SHOOTS, { ...example, metadata: { ...example.metadata, labels: LABELS } }, cancel);
    await assert.rejects(
      owner.create(SHOOTS, shoot("wrong", BAD), cancel),
      /denied the request: spec\.extensions\[0\]\.providerConfig\.registryPort: port 10250 is reserved/,
    );
    await owner.create(SHOOTS, shoot("unlabelled", BAD, {}), cancel);
    const change = { spec: { extensions: [{ type: "registry-spegel", providerConfig: BAD }] } };
    const name = { namespace: NAMESPACE, name: "plain" };
    await assert.rejects(owner.mergePatch(SHOOTS, name, change, cancel), /registryPort/);
    await owner.mergePatch(
      SHOOTS,
      { namespace: NAMESPACE, name: "unlabelled" },
      { metadata: { labels: LABELS } },
      cancel,
    );
    const { body } = await fetchText(program.metricsAddress, "/metrics");
    assert.match(body, /registry_spegel_admission_reviews_total\{result="denied"\} 2/);
  });

  it("takes the operator's ports, as the extension does", async () => {
    await start(["--metrics-port=19090"]);
    await eventually(configuration);
    const config = { ...BAD, registryPort: 19090 };
    await assert.rejects(owner.create(SHOOTS, shoot("a", config), cancel), /already the metricsPort/);
  });

  it("registers under its URL, owned by the extension's namespace in the garden", async () => {
    const program = await start();
    const registered = await eventually(configuration);
    const [reference] = registered.metadata["ownerReferences"] as { name: string }[];
    assert.equal(reference?.name, OWNER);
    const webhooks = registered["webhooks"] as Record<string, unknown>[];
    const [{ clientConfig, ...webhook } = {}, ...others] = webhooks;
    assert.equal(others.length, 0);
    const { url, caBundle } = clientConfig as { url: string; caBundle: string };
    assert.equal(url, `https://${program.webhookAddress}/webhooks/registry-spegel`);
    assert.equal(parseCertificates(Buffer.from(caBundle, "base64").toString()).length, 1);
    assert.deepEqual(webhook, {
      name: "validation.registry-spegel.extensions.gardener.cloud",
      admissionReviewVersions: ["v1", "v1beta1"],
      rules: [
        {
          operations: ["CREATE", "UPDATE"],
          apiGroups: ["core.gardener.cloud"],
          apiVersions: ["*"],
          resources: ["shoots"],
          scope: "*",
        },
      ],
      namespaceSelector: {},
      objectSelector: { matchLabels: LABELS },
      failurePolicy: "Fail",
      matchPolicy: "Exact",
      sideEffects: "None",
      timeoutSeconds: 10,
    });
    assert.equal(garden.list("Secret").length, 0, "keys stay in the runtime cluster");
    assert.ok(runtime.list("Secret", OWN).length >= 3);
  });

  it("is never refused anything: its rights suffice, also to register again", async () => {
    await start([], 5);
    await eventually(configuration);
    garden.remove("ValidatingWebhookConfiguration", COMPONENT);
    const again = await eventually(configuration);
    garden.seed([{ ...again, webhooks: [] } as never]);
    await eventually(() => valueAt<object[]>(configuration(), "webhooks")[0]);
    const refused = [...garden.requests, ...runtime.requests].filter(({ status }) => status === 403);
    assert.deepEqual(refused, []);
  });

  it("has no right to anything else", async () => {
    const connection = await parseKubeConfig(garden.kubeconfig({ token: TOKEN }), {
      directory: "/",
      source: "admission",
    });
    await using client = createKubeClient(connection, { userAgent: "admission" });
    await assert.rejects(client.list(SHOOTS, {}, cancel), { code: "KUBE_FORBIDDEN" });
    await assert.rejects(client.delete(SHOOTS, { namespace: NAMESPACE, name: "x" }, cancel), {
      code: "KUBE_FORBIDDEN",
    });
  });

  it("serves from every replica with one certificate, and is registered by one", async () => {
    const first = await start();
    await eventually(configuration);
    const second = await start();
    const writes = garden.requests.filter(({ method }) => method !== "GET").length;
    for (const { healthAddress } of [first, second]) {
      assert.equal((await fetchText(healthAddress, "/readyz")).status, 200);
      assert.equal((await fetchText(healthAddress, "/healthz")).status, 200);
    }
    assert.equal(writes, 1);
    const servers = runtime
      .list("Secret", OWN)
      .filter(({ metadata }) => metadata.labels?.["name"] === "registry-spegel-admission-webhook-server");
    assert.equal(servers.length, 1);
  });

  it("tells of every replica whether it is ready and until when, and of the leader when it registered", async () => {
    const before = Date.now() / 1000;
    const first = await start();
    await eventually(configuration);
    const second = await start();
    const valuesOf = async ({ metricsAddress }: typeof first): Promise<Record<string, number>> => {
      const { body } = await fetchText(metricsAddress, "/metrics");
      const lines = [...body.matchAll(/^registry_spegel_(ready|webhook_[a-z_]+) (\S+)$/gm)];
      return Object.fromEntries(lines.map(([, name, value]) => [name, Number(value)]));
    };
    const REGISTERED = "webhook_registration_timestamp_seconds";
    let leading = await valuesOf(first);
    while (leading[REGISTERED] === 0) {
      signal.throwIfAborted();
      leading = await valuesOf(first);
    }
    const waiting = await valuesOf(second);
    const [pem] = runtime.list("Secret", OWN).flatMap(({ metadata, ...secret }) => {
      const isServer = metadata.labels?.["name"] === "registry-spegel-admission-webhook-server";
      const data = valueAt<Record<string, string>>(secret, "data");
      return isServer ? [Buffer.from(data["tls.crt"] ?? "", "base64").toString()] : [];
    });
    const endsAt = Date.parse(parseCertificates(pem ?? "")[0]?.validTo ?? "") / 1000;
    for (const values of [leading, waiting]) {
      assert.equal(values["ready"], 1);
      assert.equal(values["webhook_certificate_expiration_timestamp_seconds"], endsAt);
    }
    const registeredAt = leading[REGISTERED] ?? 0;
    assert.ok(registeredAt >= before && registeredAt <= Date.now() / 1000, String(registeredAt));
    assert.equal(waiting[REGISTERED], 0);
  });

  it("answers bad requests without harm", async () => {
    const { webhookAddress } = await start();
    const caBundle = valueAt<string>(await eventually(configuration), "webhooks.0.clientConfig.caBundle");
    const send = (path: string, method: string, body: string | Buffer) =>
      new Promise<{ status: number; text: string }>((resolve, reject) => {
        const ca = Buffer.from(caBundle, "base64");
        const request = httpsRequest(
          `https://${webhookAddress}${path}`,
          { method, ca, agent: false, headers: { "content-type": "application/json" } },
          (response) => {
            let text = "";
            response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
            response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
          },
        );
        // The server closes while a body that is too large is still being sent.
        request.on("error", (error: NodeJS.ErrnoException) =>
          /EPIPE|ECONNRESET/.test(error.code ?? "") ? resolve({ status: 413, text: "" }) : reject(error),
        );
        request.end(body);
      });
    const path = "/webhooks/registry-spegel";
    const { status, text } = await send(path, "POST", "garbage");
    assert.equal(status, 200);
    assert.match(text, /"allowed":false,"status":\{"code":400/);
    assert.match((await send(path, "POST", Buffer.alloc(5 << 20, 1))).text, /"code":400/);
    assert.equal((await send(path, "POST", Buffer.alloc(MAX_REVIEW_BYTES + 1, " "))).status, 413);
    assert.equal((await send("/webhooks/other", "POST", "{}")).status, 404);
    assert.equal((await send(path, "GET", "")).status, 405);
    await owner.create(SHOOTS, shoot("still-judged"), cancel);
  });

  it("is registered only once it has a certificate", async () => {
    const fault = runtime.faults.inject({ method: "GET", path: /\/secrets/ }, { status: 500 });
    const starting = start([], 20);
    await eventually(() => runtime.requests.some(({ path }) => path.includes("/secrets")) || undefined);
    assert.equal(configuration(), undefined);
    fault[Symbol.dispose]();
    await starting;
    await eventually(configuration);
  });
});

describe("the program", { timeout: 60_000 }, () => {
  it("names every wrong setting and exits with 2", async () => {
    const child = spawn(process.execPath, [MAIN, "--webhook-config-mode=url", "--router-port=0"]);
    let errors = "";
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (errors += chunk));
    const [code] = (await once(child, "exit")) as [number];
    assert.equal(code, 2);
    assert.match(errors, /--webhook-config-url: must be host or host:port/);
    assert.match(errors, /--router-port: must be an integer between 1 and 65535/);
  });

  it("finds the garden through GARDEN_KUBECONFIG, runs until SIGTERM and exits with 0", async () => {
    const argv = argumentsFor(await freePort()).filter((each) => !each.startsWith("--kubeconfig"));
    const child = spawn(process.execPath, [MAIN, ...argv], {
      env: { GARDEN_KUBECONFIG: join(directory, "garden"), KUBECONFIG: "/nonexistent" },
    });
    parts.defer(() => void child.kill("SIGKILL"));
    let output = "";
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (output += chunk));
    await eventually(configuration);
    child.kill("SIGTERM");
    const [code] = (await once(child, "exit")) as [number];
    assert.equal(code, 0, output);
    assert.doesNotMatch(output, /PRIVATE KEY|token-of/);
  });
});

describe("the settings", () => {
  const problems = async (...argv: string[]): Promise<string[]> => {
    try {
      await readFlags({ argv, environment: {} });
      return [];
    } catch (error) {
      return (error as { problems: { path: string }[] }).problems.map(({ path }) => path);
    }
  };

  it("are judged one by one", async () => {
    assert.deepEqual(await problems(), []);
    for (const wrong of [
      "--registry-port=65536",
      "--router-port=0",
      "--metrics-port=-1",
      "--webhook-config-server-port=65536",
      "--webhook-config-service-port=0",
      "--shutdown-delay-seconds=301",
      "--metrics-bind-address=here",
      "--health-bind-address=1",
      "--log-level=LOUD",
      "--nope=1",
    ]) {
      assert.deepEqual(await problems(wrong), [wrong.split("=")[0]], wrong);
    }
    for (const url of ["", "a/b", "user@a", "a?b", "http://a"]) {
      const given = ["--webhook-config-mode=url", `--webhook-config-url=${url}`];
      assert.deepEqual(await problems(...given), ["--webhook-config-url"], url);
    }
    assert.deepEqual(await problems("--webhook-config-mode=url", "--webhook-config-url=a.garden"), []);
  });

  it("take the flag before the environment", async () => {
    const environment = { GARDEN_KUBECONFIG: "/from/environment", KUBECONFIG: "/not/this" };
    assert.equal((await readFlags({ argv: [], environment })).kubeconfig, "/from/environment");
    const argv = ["--kubeconfig=/from/flag"];
    assert.equal((await readFlags({ argv, environment })).kubeconfig, "/from/flag");
    assert.equal((await readFlags({ argv: [], environment: {} })).kubeconfig, undefined);
  });
});
