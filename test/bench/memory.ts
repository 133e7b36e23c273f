// SPDX-License-Identifier: Apache-2.0
/**
 * Memory of `spegel registry` as built: idle, with 5,000 keys of its own, and while it relays 64 blobs at once.
 *
 *   node test/bench/memory.ts [--size-mib=64] [--keys=5000]
 *
 * Anonymous memory is what a memory limit really has to hold; resident memory also counts the mapped executable,
 * which all processes of it share and the kernel can drop.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Digest, sha256Digest } from "#oci";
import { openOCILayoutStore, type WritableContentStore } from "#store";
import { anyFree } from "../demo/free-ports.ts";
import { type RunningProcess, startProcess } from "../kit/process/index.ts";

const MIB = 1024 * 1024;
const STREAMS = 64;
const HOLDER = "127.0.0.41";
const ASKER = "127.0.0.42";
const NS = "ns=registry.example.test";
const { values } = parseArgs({
  options: { "size-mib": { type: "string", default: "64" }, keys: { type: "string", default: "5000" } },
});
const sizeBytes = Number(values["size-mib"]) * MIB;
const keys = Number(values.keys);
const signal = AbortSignal.timeout(10 * 60_000);

interface Usage {
  readonly residentMib: number;
  readonly anonymousMib: number;
}

function usageOf(pid: number): Usage {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const mib = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+([0-9]+) kB`, "m").exec(rollup)?.[1]) / 1024;
  return { residentMib: mib("Rss"), anonymousMib: mib("Anonymous") };
}

/** The highest of samples taken every 20 ms while `action` runs. */
async function peakDuring(pid: number, action: () => Promise<void>): Promise<Usage> {
  let peak = usageOf(pid);
  const timer = setInterval(() => {
    const now = usageOf(pid);
    peak = {
      residentMib: Math.max(peak.residentMib, now.residentMib),
      anonymousMib: Math.max(peak.anonymousMib, now.anonymousMib),
    };
  }, 20);
  try {
    await action();
  } finally {
    clearInterval(timer);
  }
  return peak;
}

interface Node {
  readonly process: RunningProcess;
  readonly store: WritableContentStore;
  readonly url: string;
  readonly metrics: string;
}

async function startNode(
  address: string,
  ports: {
    readonly registry: number;
    readonly router: number;
    readonly metrics: number;
    readonly id: number;
  },
  bootstrap: readonly string[],
  stack: AsyncDisposableStack,
): Promise<Node> {
  const directory = await mkdtemp(join(tmpdir(), "memory-"));
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const store = await openOCILayoutStore({ directory }, { signal });
  const started = await startProcess({
    name: `spegel on ${address}`,
    command: "dist/spegel",
    args: [
      "registry",
      `--store=oci-layout:${directory}`,
      `--registry-addr=${address}:${ports.registry}`,
      `--router-addr=${address}:${ports.router}`,
      `--metrics-addr=${address}:${ports.metrics}`,
      `--http-bootstrap-addr=${address}:${ports.id}`,
      "--mirror-resolve-timeout=1s",
      ...bootstrap,
    ],
    ready: { kind: "http", url: `http://${address}:${ports.registry}/readyz` },
    readyTimeoutMs: 30_000,
    signal,
  });
  stack.use(started);
  return {
    process: started,
    store,
    url: `http://${address}:${ports.registry}`,
    metrics: `http://${address}:${ports.metrics}`,
  };
}

/** Reads one body to its end and throws it away; gives how many bytes there were. */
function drain(url: string, agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    get(url, { agent }, (response) => {
      let bytes = 0;
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
      });
      response.on("end", () => resolve(response.statusCode === 200 ? bytes : 0));
      response.on("error", reject);
    }).on("error", reject);
  });
}

const blobUrl = (node: Node, digest: Digest): string => `${node.url}/v2/lib/app/blobs/${digest}?${NS}`;

async function until(reached: () => Promise<boolean>): Promise<void> {
  while (!(await reached())) {
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 3_000));
}

function row(title: string, usage: Usage): void {
  console.log(`| ${title} | ${usage.anonymousMib.toFixed(1)} | ${usage.residentMib.toFixed(1)} |`);
}

await using stack = new AsyncDisposableStack();
const addresses = [HOLDER, ASKER];
const ports = {
  registry: await anyFree(addresses),
  router: await anyFree(addresses),
  metrics: await anyFree(addresses),
  id: await anyFree(addresses),
};
console.log("| state of `spegel registry` | anonymous MiB | resident MiB |\n|---|---|---|");

const holder = await startNode(HOLDER, ports, ["--bootstrap-kind=static"], stack);
await settle();
row("idle, alone", usageOf(holder.process.pid));

const bootstrap = ["--bootstrap-kind=http", `--http-bootstrap-url=http://${HOLDER}:${ports.id}/id`];
const asker = await startNode(ASKER, ports, bootstrap, stack);
await settle();
row("idle, with one peer", usageOf(asker.process.pid));

const origin = { registry: "registry.example.test", repository: "lib/app" };
for (let index = 0; index < keys; index++) {
  const bytes = Buffer.from(`content ${index}`);
  await asker.store.put(sha256Digest(bytes), bytes, { signal, origin });
}
await until(async () => {
  const metrics = await (await fetch(`${asker.metrics}/metrics`)).text();
  return Number(/^spegel_swarm_own_keys ([0-9]+)/m.exec(metrics)?.[1]) >= keys;
});
await settle();
row(`${keys} keys of its own`, usageOf(asker.process.pid));
row(`${keys} records of its peer`, usageOf(holder.process.pid));

const blob = randomBytes(sizeBytes);
const digest = sha256Digest(blob);
await holder.store.put(digest, blob, { signal, origin });
const agent = new Agent({ maxSockets: STREAMS });
await until(async () => (await drain(blobUrl(asker, digest), agent)) === sizeBytes);
const transfer = (node: Node) => async (): Promise<void> => {
  const sizes = await Promise.all(Array.from({ length: STREAMS }, () => drain(blobUrl(node, digest), agent)));
  const complete = sizes.filter((size) => size === sizeBytes).length;
  if (complete !== STREAMS) throw new Error(`only ${complete} of ${STREAMS} transfers completed`);
};
const size = `${sizeBytes / MIB} MiB`;
row(`${STREAMS} serves of ${size} at once, peak`, await peakDuring(holder.process.pid, transfer(holder)));
row(`${STREAMS} relays of ${size} at once, peak`, await peakDuring(asker.process.pid, transfer(asker)));
await settle();
row("3 s later", usageOf(asker.process.pid));
agent.destroy();
