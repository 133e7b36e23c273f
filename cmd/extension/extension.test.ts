// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { Extension, OperatingSystemConfig } from "#api/gardener";
import { ConfigError, type ConfigProblem } from "#config";
import {
  type ApiObject,
  type ApiObjectInit,
  type ApiServer,
  type PolicyRule,
  readManifests,
  startApiServer,
  valueAt,
} from "#kit/api-server";
import { type ResourceManager, startResourceManager } from "#kit/resource-manager";
import { createKubeClient, type KubeClient, parseKubeConfig, type Resource } from "#kube";
import { createLogger, type Logger, silentLogger } from "#log";
import { createKeyPair, isIssuedBy, type KeyPair, parseCertificate, parseCertificates } from "#pki";
import { type ExtensionFlags, readFlags } from "./flags.ts";
import { openExtension } from "./wire.ts";

const OWN = "extension-registry-spegel-abcde";
const SHOOT = "shoot--foo--bar";
const TOKEN = "token-of-the-extension";
const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));
const signal = AbortSignal.timeout(120_000);
const cancel = { signal };

/** The rights that the chart gives in the seed; everything else must stay forbidden. */
async function readChartRules(): Promise<PolicyRule[]> {
  const read = async (file: string): Promise<PolicyRule[]> => {
    const url = new URL(`../../charts/gardener-extension-registry-spegel/rbac/${file}`, import.meta.url);
    return valueAt((await readManifests(url))[0], "rules");
  };
  const own = (await read("role.yaml")).map((rule) => ({ ...rule, namespaces: [OWN] }));
  return [...(await read("cluster-role.yaml")), ...own];
}

const EXTENSIONS: Resource<Extension> = {
  group: "extensions.gardener.cloud",
  version: "v1alpha1",
  plural: "extensions",
  kind: "Extension",
  namespaced: true,
};
const OSCS: Resource<ApiObject> = {
  group: "extensions.gardener.cloud",
  version: "v1alpha1",
  plural: "operatingsystemconfigs",
  kind: "OperatingSystemConfig",
  namespaced: true,
};

let keys: KeyPair[];
let rules: PolicyRule[];
let directory: string;
let examples: Record<"namespace" | "cluster" | "extension" | "osc", ApiObjectInit>;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "extension-"));
  rules = await readChartRules();
  keys = await Promise.all([1, 2, 3, 4].map(() => createKeyPair({ bits: 2048 })));
  const read = async (name: string): Promise<ApiObjectInit> =>
    (await readManifests(new URL(`../../example/${name}.yaml`, import.meta.url)))[0] as ApiObjectInit;
  examples = {
    namespace: await read("namespace"),
    cluster: await read("cluster"),
    extension: await read("extension"),
    osc: await read("osc-reconcile"),
  };
});
after(() => rm(directory, { recursive: true }));

let seed: ApiServer;
let shoot: ApiServer;
let manager: ResourceManager;
/** gardenlet, who may do everything. */
let gardenlet: KubeClient;
let kubeconfig: string;
let parts: AsyncDisposableStack;
let unhealthy: string | undefined;

beforeEach(async () => {
  parts = new AsyncDisposableStack();
  unhealthy = undefined;
  triggeredAt = 0;
  seed = parts.use(await startApiServer({ users: [{ name: "extension", token: TOKEN, rules }] }));
  shoot = parts.use(await startApiServer({ plain: true }));
  manager = parts.use(await startResourceManager(seed, { shoot, unhealthyReason: () => unhealthy }));
  const connection = await parseKubeConfig(seed.kubeconfig(), { directory: "/", source: "gardenlet" });
  gardenlet = parts.use(createKubeClient(connection, { userAgent: "gardenlet" }));
  kubeconfig = join(directory, "kubeconfig");
  await writeFile(kubeconfig, seed.kubeconfig({ token: TOKEN }));
  seed.seed([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: OWN } },
    examples.namespace,
    examples.cluster,
  ]);
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

async function flags(change: readonly string[] = []): Promise<ExtensionFlags> {
  const argv = [
    `--kubeconfig=${kubeconfig}`,
    `--webhook-config-namespace=${OWN}`,
    "--webhook-config-server-host=127.0.0.1",
    "--webhook-config-server-port=0",
    "--health-bind-address=127.0.0.1:0",
    "--metrics-bind-address=127.0.0.1:0",
    "--shutdown-delay-seconds=0",
    "--leader-election=false",
    "--bootstrapper-image=registry.example.org/registry-spegel-bootstrapper@sha256:aa",
    "--node-image=registry.example.org/spegel@sha256:bb",
    ...change,
  ];
  return await readFlags({ argv, environment: {} });
}

async function start(
  change: readonly string[] = [],
  more: { now?: () => number; certificateIntervalMs?: number; logger?: Logger } = {},
) {
  let index = 0;
  const stop = new AbortController();
  const program = parts.use(
    await openExtension(
      {
        logger: more.logger ?? silentLogger,
        environment: {},
        signal: stop.signal,
        createKey: async () => keys[index++ % keys.length] as KeyPair,
        ...(more.now && { now: more.now }),
        timing: {
          lease: { renewDeadlineMs: 500, retryPeriodMs: 50 },
          pollIntervalMs: 2,
          healthTimeoutMs: 5000,
          deletionTimeoutMs: 5000,
          backoff: { initialMs: 5, maxMs: 20 },
          ...(more.certificateIntervalMs !== undefined && {
            certificateIntervalMs: more.certificateIntervalMs,
          }),
        },
      },
      await flags(change),
    ),
  );
  if (program.webhookAddress !== undefined) {
    seed.setService(OWN, "gardener-extension-registry-spegel", program.webhookAddress);
  }
  return { program, stop };
}

/** Polls the state of the API server, as gardenlet does. */
async function eventually<T>(read: () => T | undefined | false): Promise<T> {
  for (;;) {
    const value = read();
    if (value !== undefined && value !== false) return value;
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const decode = (base64: string | undefined): string => Buffer.from(base64 ?? "", "base64").toString();
const extension = (): Extension | undefined =>
  seed.get("Extension", "registry-spegel", SHOOT) as unknown as Extension | undefined;
/** Requests before this one belong to earlier operations. */
let triggeredAt = 0;
const isReady = (): Extension | undefined => {
  const current = extension();
  const statusWrites = seed.requests
    .slice(triggeredAt)
    .filter(({ path, status }) => path.endsWith("/extensions/registry-spegel/status") && status === 200);
  const isDone =
    statusWrites.length >= 2 && // Processing and Succeeded
    current?.status?.lastOperation?.state === "Succeeded" &&
    current.status.observedGeneration === current.metadata.generation &&
    current.status.lastError === undefined &&
    current.metadata.annotations?.["gardener.cloud/operation"] === undefined;
  return isDone ? current : undefined;
};
const statusOf = (current: Extension): Record<string, string> =>
  current.status?.providerStatus as Record<string, string>;
const webhookConfiguration = () =>
  seed.get("MutatingWebhookConfiguration", "gardener-extension-registry-spegel");

async function createExtension(providerConfig?: object): Promise<void> {
  const spec = { type: "registry-spegel", ...(providerConfig && { providerConfig }) };
  await gardenlet.create(EXTENSIONS, { ...examples.extension, spec } as unknown as Extension, cancel);
}

/** What gardenlet does to have an Extension reconciled. */
const trigger = (operation = "reconcile", spec: object = {}): Promise<Extension> => {
  triggeredAt = seed.requests.length;
  return gardenlet.mergePatch(
    EXTENSIONS,
    { namespace: SHOOT, name: "registry-spegel" },
    { metadata: { annotations: { "gardener.cloud/operation": operation } }, spec },
    cancel,
  );
};

const osc = (name = "osc"): ApiObject =>
  ({ ...examples.osc, metadata: { name, namespace: SHOOT } }) as unknown as ApiObject;

function fetchText(address: string, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    get(`http://${address}${path}`, { agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    }).on("error", reject);
  });
}

describe("the extension against an API server", { timeout: 120_000 }, () => {
  it("turns an Extension without providerConfig into a bootstrapper and a status, and nodes into mirrors", async () => {
    const { program } = await start();
    await createExtension();
    const status = statusOf(await eventually(isReady));
    assert.deepEqual(
      { ...status, caBundleSecretName: "-", clientSecretName: "-" },
      {
        apiVersion: "spegel.extensions.gardener.cloud/v1alpha1",
        kind: "SpegelStatus",
        bootstrapURL: "https://spegel-foo--bar.ingress.local.seed.example.org/bootstrap-nodes",
        caBundleSecretName: "-",
        clientSecretName: "-",
        registryPort: 5000,
        routerPort: 5001,
        metricsPort: 9090,
        image: "registry.example.org/spegel@sha256:bb",
      },
    );
    const secret = (name: string | undefined, key: string): string =>
      decode(valueAt<Record<string, string>>(seed.get("Secret", name ?? "", SHOOT), "data")[key]);
    const authorities = parseCertificates(secret(status["caBundleSecretName"], "bundle.crt"));
    const client = parseCertificate(secret(status["clientSecretName"], "tls.crt"));
    assert.ok(isIssuedBy(client, authorities, Date.now()));
    const deployment = seed.get("Deployment", "registry-spegel-bootstrapper", SHOOT);
    const serverSecret = valueAt<string>(
      deployment,
      "spec.template.spec.volumes.0.projected.sources.0.secret.name",
    );
    const server = parseCertificate(secret(serverSecret, "tls.crt"));
    assert.ok(isIssuedBy(server, authorities, Date.now()));
    assert.ok(server.checkHost(new URL(status["bootstrapURL"] ?? "").hostname));
    const access = seed.get("Secret", "shoot-access-registry-spegel-bootstrapper", SHOOT);
    assert.ok(valueAt(access, "data.token"), "the token requestor filled the secret");

    await eventually(webhookConfiguration);
    const created = await gardenlet.create(OSCS, osc(), cancel);
    const units = valueAt<{ name: string }[]>(created, "spec.units");
    assert.ok(units.some((unit) => unit.name === "spegel.service"));
    const files = valueAt<{ content: { secretRef?: { name: string } } }[]>(created, "spec.files");
    const references = files.map((file) => file.content.secretRef?.name);
    assert.ok(references.includes(status["clientSecretName"]));
    const again = await gardenlet.mergePatch(
      OSCS,
      created.metadata as never,
      { metadata: { labels: { a: "b" } } },
      cancel,
    );
    assert.deepEqual(again["spec"], created["spec"], "the webhook adds nothing twice");
    const { body } = await fetchText(program.metricsAddress, "/metrics");
    assert.match(body, /registry_spegel_extension_runs_total\{result="success"\} [1-9]/);
    assert.match(body, /registry_spegel_webhook_certificate_expiration_timestamp_seconds 1[0-9]{9}/);
  });

  it("is never refused anything: its rights suffice", async () => {
    await start(["--leader-election=true"]);
    await createExtension();
    await eventually(isReady);
    await trigger();
    await eventually(isReady);
    await gardenlet.delete(EXTENSIONS, { namespace: SHOOT, name: "registry-spegel" }, cancel);
    await eventually(() => extension() === undefined);
    const refused = seed.requests.filter(({ user, status }) => user === "extension" && status === 403);
    assert.deepEqual(refused, []);
  });

  it("reports what is wrong with a providerConfig, and recovers when it is mended", async () => {
    await start();
    const type = { apiVersion: "spegel.extensions.gardener.cloud/v1alpha1", kind: "SpegelConfig" };
    await createExtension({ ...type, registryPort: 10250 });
    const failed = await eventually(() => (extension()?.status?.lastError ? extension() : undefined));
    assert.deepEqual(failed?.status?.lastError?.codes, ["ERR_CONFIGURATION_PROBLEM"]);
    assert.match(failed?.status?.lastError?.description ?? "", /registryPort/);
    assert.equal(failed?.status?.lastOperation?.state, "Error");
    assert.equal(seed.list("ManagedResource").length, 0);
    await eventually(webhookConfiguration);
    await assert.rejects(gardenlet.create(OSCS, osc(), cancel), /no providerStatus yet/, "nodes wait for it");
    await trigger("reconcile", { providerConfig: { ...type, registryPort: 15500 } });
    assert.equal(statusOf(await eventually(isReady))["registryPort"] as unknown, 15500);
    await gardenlet.create(OSCS, osc(), cancel);
  });

  it("takes the operator's ports where a Shoot names none", async () => {
    await start(["--registry-port=15500", "--router-port=15501", "--metrics-port=19090"]);
    await createExtension();
    const { registryPort, routerPort, metricsPort } = statusOf(await eventually(isReady));
    assert.deepEqual([registryPort, routerPort, metricsPort] as unknown[], [15500, 15501, 19090]);
  });

  it("warns of default ports that something else may take", async () => {
    const lines: string[] = [];
    const logger = createLogger({ level: "WARN", sink: { write: (line) => void lines.push(line) } });
    await start(["--registry-port=30500"], { logger });
    const line = await eventually(() => lines.find((each) => each.includes("a default port may be taken")));
    assert.match(line, /defaults\.registryPort: port 30500 lies in 30000-32767/);
  });

  it("leaves tags to the registries when the operator wants it so", async () => {
    await start(["--resolve-tags=false"]);
    await createExtension();
    await eventually(isReady);
    const { spec } = (await gardenlet.create(OSCS, osc(), cancel)) as unknown as OperatingSystemConfig;
    const capabilities = spec.criConfig?.containerd?.registries?.map(({ hosts }) => hosts?.[0]?.capabilities);
    assert.ok(capabilities && capabilities.length > 0);
    for (const each of capabilities) assert.deepEqual(each, ["pull"]);
  });

  it("changes nothing in a second reconciliation", async () => {
    await start();
    await createExtension();
    await eventually(isReady);
    const kinds = ["Secret", "ManagedResource", "Deployment", "Service", "Gateway", "VirtualService"];
    const before = kinds.map((kind) => JSON.stringify(seed.list(kind, SHOOT)));
    seed.clearRequests();
    await trigger();
    await eventually(isReady);
    assert.deepEqual(
      kinds.map((kind) => JSON.stringify(seed.list(kind, SHOOT))),
      before,
    );
    const writes = seed.requests.filter(
      ({ user, verb }) => user === "extension" && !["get", "list", "watch"].includes(verb),
    );
    assert.deepEqual(
      [...new Set(writes.map(({ path }) => path.split("/").slice(-2).join("/")))],
      ["extensions/registry-spegel", "registry-spegel/status"],
    );
    assert.deepEqual(manager.collectGarbage(), []);
  });

  it("removes everything when the Extension is deleted", async () => {
    await start();
    await createExtension();
    await eventually(isReady);
    await gardenlet.delete(EXTENSIONS, { namespace: SHOOT, name: "registry-spegel" }, cancel);
    await eventually(() => extension() === undefined);
    manager.collectGarbage();
    for (const kind of ["Secret", "ManagedResource", "Deployment", "Service", "Gateway", "DestinationRule"]) {
      assert.deepEqual(seed.list(kind, SHOOT), [], kind);
    }
    assert.deepEqual(shoot.list("ClusterRoleBinding"), []);
  });

  it("follows a rotation of the Shoot's authorities without a moment of distrust", async () => {
    await start();
    await createExtension();
    const bundle = (current: Extension): string => statusOf(current)["caBundleSecretName"] ?? "";
    const first = await eventually(isReady);
    const rotate = async (phase: string): Promise<Extension> => {
      const cluster = structuredClone(examples.cluster) as unknown as { spec: { shoot: { status: object } } };
      Object.assign(cluster.spec.shoot.status, {
        credentials: {
          rotation: { certificateAuthorities: { phase, lastInitiationTime: "2026-08-21T10:00:00Z" } },
        },
      });
      seed.seed([cluster as unknown as ApiObjectInit]);
      await trigger();
      return await eventually(isReady);
    };
    const authorities = (name: string): number => {
      const data = valueAt<Record<string, string>>(seed.get("Secret", name, SHOOT), "data");
      return parseCertificates(decode(data["bundle.crt"])).length;
    };
    const preparing = await rotate("Preparing");
    assert.equal(authorities(bundle(preparing)), 2);
    assert.notEqual(statusOf(preparing)["clientSecretName"], statusOf(first)["clientSecretName"]);
    assert.ok(
      seed.get("Secret", statusOf(first)["clientSecretName"] ?? "", SHOOT),
      "the nodes still refer to it",
    );
    const prepared = await rotate("Prepared");
    assert.deepEqual(statusOf(prepared), statusOf(preparing));
    assert.equal(seed.get("Secret", statusOf(first)["clientSecretName"] ?? "", SHOOT), undefined);
    const completing = await rotate("Completing");
    assert.equal(authorities(bundle(completing)), 1);
    assert.equal(statusOf(completing)["clientSecretName"], statusOf(preparing)["clientSecretName"]);
  });

  it("gets over conflicts, failures and an API server that goes away for a while", async () => {
    await start();
    seed.faults.inject({ method: "PATCH", path: /extensions\/registry-spegel$/, times: 2 }, { status: 409 });
    seed.faults.inject({ method: "POST", path: /secrets/, times: 2 }, { status: 500 });
    seed.faults.inject({ method: "POST", path: /managedresources/, times: 1 }, "reset");
    await createExtension();
    await eventually(isReady);
    const down = [
      seed.faults.inject({ path: /extensions/ }, "reset"),
      seed.faults.inject({ path: /secrets/ }, { status: 503 }),
    ];
    seed.faults.dropWatches();
    seed.faults.compact();
    seed.seed([
      {
        ...(extension() as object),
        metadata: { ...extension()?.metadata, annotations: { "gardener.cloud/operation": "reconcile" } },
        status: { ...extension()?.status, lastOperation: undefined },
      } as unknown as ApiObjectInit,
    ]);
    for (const fault of down) fault[Symbol.dispose]();
    await eventually(isReady);
  });

  it("waits for what it deployed, and says what is not healthy", async () => {
    unhealthy = "the pod does not start";
    await start();
    await createExtension();
    await eventually(() => seed.list("ManagedResource").length === 2);
    assert.notEqual(extension()?.status?.lastOperation?.state, "Succeeded");
    unhealthy = undefined;
    manager.resync();
    await eventually(isReady);
  });

  it("serves a webhook that its namespace owns and that denies nothing to others", async () => {
    const { program } = await start();
    const configuration = await eventually(webhookConfiguration);
    assert.deepEqual(
      (configuration.metadata["ownerReferences"] as { name: string; uid: string }[]).map(({ name }) => name),
      [OWN],
    );
    assert.equal(configuration.metadata.labels?.["remediation.webhook.shoot.gardener.cloud/exclude"], "true");
    seed.seed([{ apiVersion: "v1", kind: "Namespace", metadata: { name: "shoot--foo--other" } }]);
    const other = { ...osc(), metadata: { name: "osc", namespace: "shoot--foo--other" } };
    const created = await gardenlet.create(OSCS, other as ApiObject, cancel);
    assert.deepEqual(created["spec"], examples.osc["spec"], "not enabled there");
    const early = await gardenlet.create(OSCS, osc("early"), cancel);
    assert.deepEqual(early["spec"], examples.osc["spec"], "enabled, but the Extension does not exist yet");
    assert.equal((await fetchText(program.healthAddress, "/readyz")).status, 200);
  });

  it("serves under a URL where the API server cannot reach Services", async () => {
    const open = async (): Promise<string> => {
      const port = await freePort();
      const url = `127.0.0.1:${port}`;
      const mode = [
        "--webhook-config-mode=url",
        `--webhook-config-url=${url}`,
        `--webhook-config-server-port=${port}`,
      ];
      return await start(mode).then(
        () => url,
        (error: NodeJS.ErrnoException) => (error.code === "EADDRINUSE" ? open() : Promise.reject(error)),
      );
    };
    const url = await open();
    const configuration = await eventually(webhookConfiguration);
    assert.equal(
      valueAt(configuration, "webhooks.0.clientConfig.url"),
      `https://${url}/webhooks/registry-spegel`,
    );
    await createExtension();
    await eventually(isReady);
    const units = valueAt<{ name: string }[]>(await gardenlet.create(OSCS, osc(), cancel), "spec.units");
    assert.ok(units.some(({ name }) => name === "spegel.service"));
  });

  it("registers again what somebody changed, and renews its certificate while it serves", async () => {
    // The API server verifies by the real clock: what is issued now must be valid today.
    let nowMs = Date.now() - 21 * 24 * 3_600_000;
    await start([], { now: () => nowMs, certificateIntervalMs: 5 });
    const bundleOf = (configuration: ApiObject): string =>
      decode(valueAt<string>(configuration, "webhooks.0.clientConfig.caBundle"));
    const first = bundleOf(await eventually(webhookConfiguration));
    const CONFIGURATION = {
      group: "admissionregistration.k8s.io",
      version: "v1",
      plural: "mutatingwebhookconfigurations",
      kind: "MutatingWebhookConfiguration",
      namespaced: false,
    };
    const name = { name: "gardener-extension-registry-spegel" };
    await gardenlet.jsonPatch(
      CONFIGURATION,
      name,
      [{ op: "replace", path: "/webhooks/0/failurePolicy", value: "Ignore" }],
      cancel,
    );
    await eventually(() => valueAt(webhookConfiguration(), "webhooks.0.failurePolicy") === "Fail");
    nowMs += 21 * 24 * 3_600_000;
    const both = await eventually(() => {
      const bundle = bundleOf(webhookConfiguration() as ApiObject);
      return parseCertificates(bundle).length === 2 && bundle;
    });
    assert.ok(both.includes(first.trim()), "the API server still trusts the certificate that is served");
    await gardenlet.create(OSCS, osc("during"), cancel);
    nowMs += 25 * 3_600_000;
    await eventually(() => parseCertificates(bundleOf(webhookConfiguration() as ApiObject)).length === 1);
    for (;;) {
      // The new certificate is served from the next reload on.
      const result = await gardenlet.create(OSCS, osc("after"), cancel).catch((error: Error) => error);
      if (!(result instanceof Error)) break;
      assert.match(result.message, /failed calling webhook/);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });

  it("lets one replica lead and every replica serve", async () => {
    const { program: first, stop } = await start(["--leader-election=true"]);
    const { program: second } = await start(["--leader-election=true"]);
    assert.ok(first.webhookAddress && second.webhookAddress);
    const lease = () =>
      seed.get("Lease", "gardener-extension-registry-spegel-leader-election", OWN)?.["spec"] as
        | Record<string, unknown>
        | undefined;
    const leader = await eventually(() => lease()?.["holderIdentity"]);
    const heartbeat = await eventually(() => seed.get("Lease", "gardener-extension-heartbeat", OWN));
    assert.equal(
      (heartbeat["spec"] as { holderIdentity: string }).holderIdentity,
      "gardener-extension-registry-spegel",
    );
    await createExtension();
    await eventually(isReady);
    stop.abort();
    await first.finished;
    await eventually(() => lease()?.["holderIdentity"] !== leader && lease()?.["holderIdentity"]);
    await trigger();
    await eventually(isReady);
    await gardenlet.create(OSCS, osc(), cancel);
  });

  it("fails when it loses leadership", async () => {
    const { program } = await start(["--leader-election=true"]);
    const lease = "gardener-extension-registry-spegel-leader-election";
    await eventually(() => seed.get("Lease", lease, OWN));
    seed.seed([
      {
        apiVersion: "coordination.k8s.io/v1",
        kind: "Lease",
        metadata: { name: lease, namespace: OWN },
        spec: { holderIdentity: "another", leaseDurationSeconds: 3600 },
      },
    ]);
    await assert.rejects(program.finished, { code: "KUBE_LEADERSHIP_LOST" });
  });

  it("stops gracefully: not ready first, then gone", async () => {
    const { program, stop } = await start();
    assert.equal((await fetchText(program.healthAddress, "/readyz")).status, 200);
    stop.abort();
    const { status, body } = await fetchText(program.healthAddress, "/readyz");
    assert.deepEqual([status, body], [503, "the program is stopping\n"]);
    await program.finished;
    await program[Symbol.asyncDispose]();
    await assert.rejects(fetchText(program.healthAddress, "/healthz"));
  });
});

describe("the program", { timeout: 60_000 }, () => {
  it("names every wrong setting and exits with 2", async () => {
    const child = spawn(process.execPath, [
      MAIN,
      "--bootstrapper-image=",
      "--webhook-config-mode=url",
      "--nope",
      "--max-concurrent-reconciles=0",
    ]);
    let errors = "";
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (errors += chunk));
    const [code] = (await once(child, "exit")) as [number];
    assert.equal(code, 2);
    assert.match(errors, /--nope: is not a known flag/);
  });

  it("runs until SIGTERM and exits with 0", async () => {
    const child = spawn(process.execPath, [
      MAIN,
      `--kubeconfig=${kubeconfig}`,
      `--webhook-config-namespace=${OWN}`,
      "--webhook-config-server-host=127.0.0.1",
      "--webhook-config-server-port=0",
      "--health-bind-address=127.0.0.1:0",
      "--metrics-bind-address=127.0.0.1:0",
      "--shutdown-delay-seconds=0",
      "--bootstrapper-image=registry.example.org/b@sha256:aa",
      "--node-image=registry.example.org/n@sha256:bb",
    ]);
    parts.defer(() => void child.kill("SIGKILL"));
    let output = "";
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (output += chunk));
    await createExtension();
    await eventually(isReady);
    child.kill("SIGTERM");
    const [code] = (await once(child, "exit")) as [number];
    assert.equal(code, 0, output);
    const lease = seed.get("Lease", "gardener-extension-registry-spegel-leader-election", OWN);
    assert.equal(valueAt(lease, "spec.holderIdentity"), "");
    assert.doesNotMatch(output, /PRIVATE KEY|token-of/);
  });
});

describe("the settings", () => {
  const problemsOf = async (...argv: string[]): Promise<readonly ConfigProblem[]> => {
    const base = ["--bootstrapper-image=a", "--node-image=b"];
    try {
      await readFlags({ argv: [...base, ...argv], environment: {} });
      return [];
    } catch (error) {
      assert.ok(error instanceof ConfigError, String(error));
      return error.problems;
    }
  };
  const problems = async (...argv: string[]): Promise<string[]> =>
    (await problemsOf(...argv)).map(({ path }) => path);

  it("take Gardener's names from flags and environment", async () => {
    const { leaderElectionNamespace, webhookConfigNamespace, leaderElection, istioIngressLabels } =
      await readFlags({
        argv: ["--bootstrapper-image=a", "--node-image=b", "--leader-election=false"],
        environment: { LEADER_ELECTION_NAMESPACE: "x", WEBHOOK_CONFIG_NAMESPACE: "y" },
      });
    assert.deepEqual([leaderElectionNamespace, webhookConfigNamespace, leaderElection], ["x", "y", false]);
    assert.deepEqual(istioIngressLabels, {
      app: "istio-ingressgateway",
      istio: "ingressgateway",
      "istio-role": "seed",
    });
  });

  it("are judged one by one", async () => {
    assert.deepEqual(await problems(), []);
    assert.deepEqual(await problems("--webhook-config-mode=url"), ["--webhook-config-url"]);
    assert.deepEqual(await problems("--webhook-config-mode=url", "--webhook-config-url=host/path"), [
      "--webhook-config-url",
    ]);
    assert.deepEqual(await problems("--node-image=a b"), ["--node-image"]);
    assert.deepEqual(await problems("--memory-high=lots", "--memory-max=1T"), [
      "--memory-high",
      "--memory-max",
    ]);
    assert.deepEqual(await problems("--registry-filters", "^a[.]b/", ":v1,2{3}$"), []);
    assert.deepEqual(await problems("--registry-filters", "^a", "(?<=a)b"), ["--registry-filters"]);
    assert.deepEqual(await problems("--resolve-tags=perhaps"), ["--resolve-tags"]);
    assert.deepEqual(await problems("--kube-api-qps=0", "--kube-api-burst=0"), [
      "--kube-api-qps",
      "--kube-api-burst",
    ]);
    assert.deepEqual(await problems("--istio-ingress-labels=app"), ["--istio-ingress-labels"]);
    assert.deepEqual(await problems("--health-bind-address=x"), ["--health-bind-address"]);
    assert.deepEqual(await problems("--controllers=all", "--disable-controllers=all"), [
      "--controllers",
      "--disable-controllers",
    ]);
  });

  it("hold default ports to the rules for those of a Shoot", async () => {
    const portProblems = async (...argv: string[]): Promise<string[]> =>
      (await problemsOf(...argv)).map(({ path, message }) => `${path} ${message}`);
    assert.deepEqual(
      await portProblems("--registry-port=15500", "--router-port=15501", "--metrics-port=19090"),
      [],
    );
    assert.deepEqual(await portProblems("--registry-port=0", "--router-port=70000"), [
      "--registry-port must be an integer between 1 and 65535, not 0",
      "--router-port must be an integer between 1 and 65535, not 70000",
    ]);
    assert.deepEqual(await portProblems("--metrics-port=10250"), [
      "--metrics-port port 10250 is reserved on Gardener nodes: kubelet and kube-proxy",
    ]);
    assert.deepEqual(await portProblems("--router-port=5000"), [
      "--router-port port 5000 is already the --registry-port",
    ]);
    assert.deepEqual(
      (await portProblems("--metrics-port=5001")).map((problem) => problem.split(" ")[0]),
      ["--metrics-port"],
      "also when the other one is the schema's default",
    );
  });

  it("run the controllers that are named and not disabled", async () => {
    const disabled = async (...argv: string[]): Promise<readonly string[]> =>
      (await readFlags({ argv: ["--bootstrapper-image=a", "--node-image=b", ...argv], environment: {} }))
        .disableControllers;
    assert.deepEqual(await disabled(), []);
    assert.deepEqual(await disabled("--controllers=extension"), ["heartbeat"]);
    assert.deepEqual(await disabled("--disable-controllers=extension"), ["extension"]);
    assert.deepEqual(await disabled("--controllers=extension,heartbeat", "--disable-controllers=heartbeat"), [
      "heartbeat",
    ]);
  });

  it("say why flags of Gardener's own library are not taken", async () => {
    const [problem, other] = await problemsOf("--webhook-config-cert-dir=/certs", "--master", "x");
    assert.equal(problem?.path, "--webhook-config-cert-dir");
    assert.match(problem?.message ?? "", /kept in a Secret and in memory.*leave it out/);
    assert.equal(other?.path, "--master");
  });
});
