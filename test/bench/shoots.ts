// SPDX-License-Identifier: Apache-2.0
/**
 * Many Shoots on one seed: a real API server, the extension as a process, stand-ins for the rest of Gardener.
 *
 *   node test/bench/shoots.ts [--shoots=1000] [--nodes=10000]
 *
 * Prints how long the extension takes for all of them at first and again, what it asks of the API server for each and
 * its memory; then the same of one bootstrapper whose Shoot has so many nodes.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { sleep } from "#async";
import { EXTENSION_NAME } from "#extension";
import { startLandscape } from "../cluster/landscape.ts";
import { createNodes } from "../cluster/nodes.ts";
import { askForNodes } from "../cluster/poll-clients.ts";
import { installExtension } from "../cluster/run-extension.ts";
import { startWorkload } from "../cluster/stand-ins/workload.ts";
import { cpuSecondsOf } from "./measured-process.ts";
import { printTable } from "./print-table.ts";

process.env["PROGRAMS"] = "built";
const { values } = parseArgs({
  options: { shoots: { type: "string", default: "1000" }, nodes: { type: "string", default: "10000" } },
});
const shootCount = Number(values.shoots);
const nodeCount = Number(values.nodes);
/** gardenlet reconciles so many Shoots at a time by default, so that the extension always has something to do. */
const GARDENLET_WORKERS = 20;
const ANSWERS = 300;

await using landscape = await startLandscape({ lifetimeMs: 7_200_000 });
await using installation = await installExtension(landscape);
await using replica = await installation.spawn();
const { gardenlet, seed, shoot } = landscape;
const namespaces: string[] = [];
await inParallel(
  "namespaces of Shoots",
  shootCount,
  async () => void namespaces.push(await gardenlet.addShoot()),
);

const rows: string[][] = [
  ["", "time", "per Shoot", "reads/Shoot", "writes/Shoot", "CPU/Shoot", "peak RSS", "RSS", "anonymous"],
];
await measure("at first", (namespace) => gardenlet.enable(namespace));
await measure("again", (namespace) => gardenlet.deploy(namespace));
printTable(`${shootCount} Shoots`, rows);
await measureBootstrapper();

/** Runs `action` so often, as many at a time as gardenlet does; says every tenth how far it is. */
async function inParallel(
  what: string,
  count: number,
  action: (index: number) => Promise<void>,
): Promise<void> {
  const startedMs = performance.now();
  let next = 0;
  let done = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) {
      await action(index);
      done++;
      if (done % Math.ceil(count / 10) !== 0 && done !== count) continue;
      console.log(`${what}: ${done} of ${count} in ${((performance.now() - startedMs) / 1000).toFixed(0)} s`);
    }
  };
  await Promise.all(Array.from({ length: GARDENLET_WORKERS }, worker));
}

async function measure(name: string, ask: (namespace: string) => Promise<void>): Promise<void> {
  const { pid } = replica.process;
  const asked = { reads: 0, writes: 0 };
  seed.front.gate = ({ userAgent, path, method }) => {
    // What every replica does anyway, for the Lease and the webhook, is no Shoot's.
    if (userAgent.startsWith(EXTENSION_NAME) && path.includes("shoot--")) {
      asked[method === "GET" ? "reads" : "writes"]++;
    }
    return "pass";
  };
  resetPeak(pid);
  const cpu = cpuSecondsOf(pid);
  const startedMs = performance.now();
  await inParallel(name, shootCount, async (index) => {
    const namespace = namespaces[index] as string;
    await ask(namespace);
    await gardenlet.awaitReady(namespace);
  });
  const seconds = (performance.now() - startedMs) / 1000;
  rows.push([
    name,
    `${seconds.toFixed(1)} s`,
    `${((seconds * 1000) / shootCount).toFixed(0)} ms`,
    (asked.reads / shootCount).toFixed(1),
    (asked.writes / shootCount).toFixed(1),
    `${(((cpuSecondsOf(pid) - cpu) * 1000) / shootCount).toFixed(0)} ms`,
    ...memoryOf(pid),
  ]);
}

async function measureBootstrapper(): Promise<void> {
  const namespace = namespaces[0] as string;
  await createNodes(shoot.admin, nodeCount);
  await using workload = await startWorkload(landscape, namespace);
  shoot.front.clearRequests();
  await workload.settled();
  const { pid } = workload;
  const lists = shoot.front.requests.filter(
    ({ path, isWatch }) => path.endsWith("/nodes") && !isWatch,
  ).length;
  const listed = [`${lists}`, `${cpuSecondsOf(pid).toFixed(2)} s`, "", "", ...memoryOf(pid)];

  resetPeak(pid);
  const beforeWatch = cpuSecondsOf(pid);
  const nodes = await shoot.admin.list("v1", "Node");
  const heartbeats = nodes.slice(0, 2000);
  await inParallel("heartbeats", heartbeats.length, async (index) => {
    const lastHeartbeatTime = new Date().toISOString().replace(/\.\d+Z/, "Z");
    const condition = {
      type: "Ready",
      status: "True",
      reason: "KubeletReady",
      message: "",
      lastHeartbeatTime,
    };
    const node = heartbeats[index];
    if (node) await shoot.admin.mergePatch(node, { status: { conditions: [condition] } }, "status");
  });
  await sleep(500, landscape);
  const watchMs = ((cpuSecondsOf(pid) - beforeWatch) * 1000) / heartbeats.length;
  const watched = ["", `${watchMs.toFixed(2)} ms an event`, "", "", ...memoryOf(pid)];

  const status = (await gardenlet.extension(namespace))?.status?.providerStatus as Record<string, string>;
  const bundle = await gardenlet.secretData(namespace, status["caBundleSecretName"] ?? "");
  const client = await gardenlet.secretData(namespace, status["clientSecretName"] ?? "");
  const certificates = {
    ca: String(bundle?.["bundle.crt"]),
    cert: String(client?.["tls.crt"]),
    key: String(client?.["tls.key"]),
  };
  const target = { address: workload.address, host: new URL(status["bootstrapURL"] ?? "").hostname };
  resetPeak(pid);
  const beforeAnswers = cpuSecondsOf(pid);
  const times: number[] = [];
  for (let count = 0; count < ANSWERS; count++) {
    const startedMs = performance.now();
    await askForNodes(target, certificates);
    times.push(performance.now() - startedMs);
  }
  times.sort((a, b) => a - b);
  const ms = (share: number): string => `${(times[Math.floor(ANSWERS * share)] ?? 0).toFixed(1)} ms`;
  const answerMs = ((cpuSecondsOf(pid) - beforeAnswers) * 1000) / ANSWERS;
  const answered = ["", `${answerMs.toFixed(1)} ms an answer`, ms(0.5), ms(0.99), ...memoryOf(pid)];
  printTable(`one bootstrapper, ${nodeCount} nodes`, [
    ["", "requests", "CPU", "p50", "p99", "peak RSS", "RSS", "anonymous"],
    ["start and list", ...listed],
    [`${heartbeats.length} heartbeats on the watch`, ...watched],
    [`${ANSWERS} answers, each with a handshake`, ...answered],
  ]);
}

function memoryOf(process: number): [peak: string, resident: string, anonymous: string] {
  const text = readFileSync(`/proc/${process}/status`, "utf8");
  const mib = (field: string): string =>
    `${(Number(new RegExp(`${field}:\\s+(\\d+)`).exec(text)?.[1]) / 1024).toFixed(0)} MiB`;
  return [mib("VmHWM"), mib("VmRSS"), mib("RssAnon")];
}

/** From here on the peak is that of what follows. */
function resetPeak(process: number): void {
  writeFileSync(`/proc/${process}/clear_refs`, "5");
}
