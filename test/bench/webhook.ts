// SPDX-License-Identifier: Apache-2.0
/**
 * Time to answer for the webhook of OperatingSystemConfigs, as built, over TLS.
 *
 *   node test/bench/webhook.ts [--seconds=8] [--connections=50]
 *
 * The program has one processor, the clients the other. Each request is an UPDATE as gardenlet makes it: the object
 * without, the old object with what the webhook adds. The caches of the webhook are filled, so that no request of its
 * own is on the way; the last column counts those.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { parseArgs } from "node:util";
import type { OperatingSystemConfig } from "#api/gardener";
import { sleep } from "#async";
import { type ApiObjectInit, readManifests, startApiServer } from "#kit/api-server";
import { addSpegel } from "#osc";
import { startProcess } from "../kit/process/index.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "8" },
    connections: { type: "string", default: "50" },
    sizes: { type: "string", default: "20,100,300" },
  },
});
const durationMs = Number(values.seconds) * 1000;
const connectionCount = Number(values.connections);
const PATH = "/webhooks/registry-spegel";
const NAMESPACE = "shoot--foo--bar";
const OWN = "extension-registry-spegel";
const TOKEN = "token-of-the-extension";
const signal = AbortSignal.timeout(15 * 60_000);
const STATUS = {
  apiVersion: "spegel.extensions.gardener.cloud/v1alpha1",
  kind: "SpegelStatus",
  bootstrapURL: "https://spegel-foo--bar.ingress.local.seed.example.org/bootstrap-nodes",
  caBundleSecretName: "ca-extension-registry-spegel-bundle-1a2b3c4d",
  clientSecretName: "registry-spegel-client-1a2b3c4d-5e6f7",
  registryPort: 5000,
  routerPort: 5001,
  metricsPort: 9090,
  image: "registry.example.org/spegel@sha256:bb",
} as const;

const example = async (name: string): Promise<ApiObjectInit> =>
  (await readManifests(new URL(`../../example/${name}.yaml`, import.meta.url)))[0] as ApiObjectInit;

/** The node configuration of a pool, filled up with inline files as Gardener's: base64, some kilobytes each. */
function oscOf(original: OperatingSystemConfig, sizeBytes: number): OperatingSystemConfig {
  const files = [...(original.spec.files ?? [])];
  for (let index = 0; JSON.stringify(files).length < sizeBytes; index++) {
    const data = Buffer.alloc(1500 + ((index * 977) % 4000), `line ${index} of a script\n`).toString(
      "base64",
    );
    const content = { inline: { encoding: "b64", data } } as const;
    files.push({ path: `/var/lib/component-${index}/config`, permissions: 420, content });
  }
  return { ...original, spec: { ...original.spec, files } };
}

function requestOf(osc: OperatingSystemConfig): Buffer {
  const old = addSpegel(osc, {
    ...STATUS,
    capabilities: ["pull", "resolve"],
    memoryHigh: "80M",
    memoryMax: "100M",
    watchdogSeconds: 10,
  });
  const body = JSON.stringify({
    kind: "AdmissionReview",
    apiVersion: "admission.k8s.io/v1",
    request: {
      uid: "705ab4f5-6393-11e8-b7cc-42010a800002",
      kind: { group: "extensions.gardener.cloud", version: "v1alpha1", kind: "OperatingSystemConfig" },
      resource: {
        group: "extensions.gardener.cloud",
        version: "v1alpha1",
        resource: "operatingsystemconfigs",
      },
      name: osc.metadata.name,
      namespace: NAMESPACE,
      operation: "UPDATE",
      userInfo: { username: "gardenlet", groups: ["system:authenticated"] },
      object: osc,
      oldObject: old,
      dryRun: false,
      options: { kind: "UpdateOptions", apiVersion: "meta.k8s.io/v1" },
    },
  });
  const head = `POST ${PATH}?timeout=10s HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n`;
  return Buffer.from(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

interface Client extends Disposable {
  /** Sends one request; the bytes of its answer. */
  ask(request: Buffer): Promise<Buffer>;
}

/** As little as makes a client: on a small machine it runs beside what it measures. */
async function openClient(address: string): Promise<Client> {
  const [host, port] = address.split(":");
  const socket: TLSSocket = connect({ host: host as string, port: Number(port), rejectUnauthorized: false });
  socket.setNoDelay(true);
  await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
  let answered: ((answer: Buffer) => void) | undefined;
  let failed: ((error: Error) => void) | undefined;
  let received: Buffer[] = [];
  let missing = -1;
  socket.on("error", (error) => failed?.(error));
  socket.on("close", () => failed?.(new Error("the webhook closed the connection")));
  socket.on("data", (chunk: Buffer) => {
    received.push(chunk);
    if (missing < 0) {
      const head = Buffer.concat(received);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      if (!head.subarray(0, 12).equals(Buffer.from("HTTP/1.1 200")))
        return failed?.(new Error(head.toString()));
      const length = /content-length: (\d+)/i.exec(head.subarray(0, end).toString("latin1"))?.[1];
      missing = end + 4 + Number(length) - head.length;
    } else {
      missing -= chunk.length;
    }
    if (missing > 0) return;
    const answer = Buffer.concat(received);
    received = [];
    missing = -1;
    answered?.(answer);
  });
  return {
    ask(request) {
      return new Promise((resolve, reject) => {
        [answered, failed] = [resolve, reject];
        socket.write(request);
      });
    },
    [Symbol.dispose]() {
      failed = undefined;
      socket.destroy();
    },
  };
}

/** Milliseconds of every answer within the time, in ascending order. */
async function measure(
  clients: readonly Client[],
  request: Buffer,
  { pauseMs, ms }: { readonly pauseMs: number; readonly ms: number },
): Promise<number[]> {
  const times: number[] = [];
  const untilMs = performance.now() + ms;
  await Promise.all(
    clients.map(async (client, index) => {
      if (pauseMs > 0) await sleep((pauseMs * index) / clients.length, { signal });
      for (let count = 0; performance.now() < untilMs; count++) {
        const startedMs = performance.now();
        await client.ask(request);
        times.push(performance.now() - startedMs);
        // Spread, and the same in every run.
        if (pauseMs > 0) await sleep(pauseMs * (0.5 + ((index * 37 + count * 61) % 100) / 100), { signal });
      }
    }),
  );
  return times.sort((a, b) => a - b);
}

await using parts = new AsyncDisposableStack();
const directory = await mkdtemp(join(tmpdir(), "webhook-bench-"));
parts.defer(() => rm(directory, { recursive: true, force: true }));
const seed = parts.use(
  await startApiServer({
    users: [
      { name: "extension", token: TOKEN, rules: [{ apiGroups: ["*"], resources: ["*"], verbs: ["*"] }] },
    ],
  }),
);
const original = (await example("osc-reconcile")) as unknown as OperatingSystemConfig;
const timestamp = original.metadata.annotations?.["gardener.cloud/timestamp"] as string;
seed.seed([
  { apiVersion: "v1", kind: "Namespace", metadata: { name: OWN } },
  await example("namespace"),
  await example("cluster"),
  {
    apiVersion: "extensions.gardener.cloud/v1alpha1",
    kind: "Extension",
    metadata: {
      name: "registry-spegel",
      namespace: NAMESPACE,
      generation: 1,
      annotations: { "gardener.cloud/timestamp": timestamp },
    },
    spec: { type: "registry-spegel" },
    status: {
      observedGeneration: 1,
      providerStatus: STATUS,
      lastOperation: {
        type: "Reconcile",
        state: "Succeeded",
        progress: 100,
        description: "",
        lastUpdateTime: timestamp,
      },
    },
  } as unknown as ApiObjectInit,
]);
const kubeconfig = join(directory, "kubeconfig");
await writeFile(kubeconfig, seed.kubeconfig({ token: TOKEN }));
const RUNNING = /"msg":"running"/;
const program = await startProcess({
  name: "extension",
  command: "taskset",
  args: [
    "--cpu-list",
    "0",
    "dist/gardener-extension-registry-spegel",
    `--kubeconfig=${kubeconfig}`,
    `--webhook-config-namespace=${OWN}`,
    "--webhook-config-server-host=127.0.0.1",
    "--webhook-config-server-port=0",
    "--health-bind-address=127.0.0.1:0",
    "--metrics-bind-address=127.0.0.1:0",
    "--shutdown-delay-seconds=0",
    "--leader-election=false",
    "--disable-controllers=extension,heartbeat",
    "--bootstrapper-image=registry.example.org/registry-spegel-bootstrapper@sha256:aa",
    "--node-image=registry.example.org/spegel@sha256:bb",
  ],
  ready: { kind: "line", pattern: RUNNING },
  readyTimeoutMs: 60_000,
  signal,
});
parts.defer(async () => void (await program.stop()));
const line = program.output.lines.find(({ text }) => RUNNING.test(text));
const { webhook } = JSON.parse(line?.text ?? "{}") as { readonly webhook: string };
using clients = new DisposableStack();
const all: Client[] = [];
for (let index = 0; index < connectionCount; index++) all.push(clients.use(await openClient(webhook)));

const rows: string[][] = [["OSC", "load", "requests", "per second", "p50", "p99", "max", "API requests"]];
for (const size of values.sizes.split(",").map(Number)) {
  const request = requestOf(oscOf(original, size * 1024));
  const answer = await (all[0] as Client).ask(request);
  if (!answer.includes('"patch":')) throw new Error(`no patch: ${answer.toString().slice(0, 500)}`);
  await measure(all, request, { pauseMs: 0, ms: 1500 }); // until the engine has compiled it
  const loads = [
    { name: "one at a time", using: all.slice(0, 1), pauseMs: 0 },
    { name: `${connectionCount} clients, each every 500 ms`, using: all, pauseMs: 500 },
    { name: `${connectionCount} in flight without pause`, using: all, pauseMs: 0 },
  ];
  for (const load of loads) {
    const before = seed.requests.filter(({ verb }) => verb === "get").length;
    const times = await measure(load.using, request, { pauseMs: load.pauseMs, ms: durationMs });
    const ms = (share: number): string =>
      `${(times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0).toFixed(2)} ms`;
    rows.push([
      `${size} KiB`,
      load.name,
      String(times.length),
      ((times.length * 1000) / durationMs).toFixed(0),
      ms(0.5),
      ms(0.99),
      ms(1),
      String(seed.requests.filter(({ verb }) => verb === "get").length - before),
    ]);
    await sleep(200, { signal });
  }
  console.log(
    `${size} KiB: request ${(request.length / 1024).toFixed(0)} KiB, answer ${(answer.length / 1024).toFixed(1)} KiB`,
  );
}
const widths = (rows[0] as string[]).map((_, column) =>
  Math.max(...rows.map((row) => (row[column] ?? "").length)),
);
console.log(
  `${cpus().length} processors, load average before the end ${loadavg()
    .map((each) => each.toFixed(1))
    .join(" ")}`,
);
for (const row of rows) console.log(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
