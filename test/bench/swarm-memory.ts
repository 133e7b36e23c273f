// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sha256Digest } from "#oci";
import { openOCILayoutStore } from "#store";
import { anyFree } from "../demo/free-ports.ts";
import { startProcess } from "../kit/process/index.ts";
import { startGroup } from "./swarm-group.ts";

const PEERS = 20;
const KEYS = 5_000;
const LIMIT_BYTES = 100 * 1024 * 1024;
const ADDRESS = "127.110.0.1";
const CGROUPS = "/sys/fs/cgroup/memory";

/** The built daemon where there is one, else its sources with the same limits of V8. */
function programCommand(): readonly [string, ...string[]] {
  if (existsSync("dist/spegel")) return ["dist/spegel"];
  return [
    process.execPath,
    "--experimental-ffi",
    "--disable-warning=ExperimentalWarning",
    "--max-semi-space-size=1",
    "--max-old-space-size=64",
    "cmd/spegel/main.ts",
  ];
}

/** A memory limit for one process; undefined without root or without the memory controller of cgroup v1. */
function createMemoryLimit():
  | { enter(command: readonly string[]): readonly [string, ...string[]]; peakMib(): number; remove(): void }
  | undefined {
  if (process.getuid?.() !== 0 || !existsSync(join(CGROUPS, "memory.limit_in_bytes"))) return undefined;
  const folder = join(CGROUPS, `swarm-bench-${process.pid}`);
  mkdirSync(folder);
  writeFileSync(join(folder, "memory.limit_in_bytes"), String(LIMIT_BYTES));
  return {
    // From its first byte on: what a process has when it enters later is not counted.
    enter: (command) => ["sh", "-c", 'echo $$ > "$0" && exec "$@"', join(folder, "cgroup.procs"), ...command],
    peakMib: () => Number(readFileSync(join(folder, "memory.max_usage_in_bytes"), "utf8")) / 1024 / 1024,
    remove: () => rmdirSync(folder),
  };
}

function anonymousMib(pid: number): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(/^Anonymous:\s+([0-9]+) kB/m.exec(rollup)?.[1]) / 1024;
}

/** The daemon under 100 MiB while 20 peers leave 5,000 records each and it announces 5,000 keys of its own. */
export async function measureReceivedRecords(): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const signal = AbortSignal.timeout(10 * 60_000);
  const directory = await mkdtemp(join(tmpdir(), "swarm-memory-"));
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const store = await openOCILayoutStore({ directory }, { signal });
  for (let i = 0; i < KEYS; i++) {
    const bytes = Buffer.from(`content ${i}`);
    await store.put(sha256Digest(bytes), bytes, { signal, origin: { registry: "r.test", repository: "a" } });
  }
  const ports = [];
  for (let i = 0; i < 4; i++) ports.push(await anyFree([ADDRESS]));
  const [registry, router, metrics, id] = ports as [number, number, number, number];
  const limit = createMemoryLimit();
  if (limit !== undefined) stack.defer(() => limit.remove());
  const program = programCommand();
  const [command, ...args] = limit?.enter(program) ?? program;
  const daemon = stack.use(
    await startProcess({
      name: "spegel registry",
      command,
      args: [
        ...args,
        "registry",
        `--store=oci-layout:${directory}`,
        `--registry-addr=${ADDRESS}:${registry}`,
        `--router-addr=${ADDRESS}:${router}`,
        `--metrics-addr=${ADDRESS}:${metrics}`,
        `--http-bootstrap-addr=${ADDRESS}:${id}`,
        "--bootstrap-kind=static",
        "--log-level=WARN",
      ],
      ready: { kind: "http", url: `http://${ADDRESS}:${registry}/readyz` },
      readyTimeoutMs: 60_000,
      signal,
    }),
  );
  const [self] = (await (await fetch(`http://${ADDRESS}:${id}/id`)).json()) as [
    { readonly ID: string; readonly Addrs: string[] },
  ];
  const peers = stack.use(
    await startGroup([
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      "test/bench/swarm-worker.ts",
      "ours",
      ...Array.from({ length: PEERS }, (_, i) => `127.110.1.${i + 1}`),
    ]),
  );
  await peers.request({ op: "join", addrs: [`${self.Addrs[0]}/p2p/${self.ID}`] });
  const read = async (name: string): Promise<number> => {
    const text = await (await fetch(`http://${ADDRESS}:${metrics}/metrics`)).text();
    return Number(new RegExp(`^${name} ([0-9.]+)`, "m").exec(text)?.[1] ?? 0);
  };
  let peak = anonymousMib(daemon.pid);
  const timer = setInterval(() => {
    peak = Math.max(peak, anonymousMib(daemon.pid));
  }, 50);
  try {
    for (let node = 0; node < PEERS; node++) {
      const keys = Array.from({ length: KEYS }, (_, i) => `sha256:${node} ${i}`);
      await peers.request({ op: "provide", node, keys });
    }
    const limitMs = performance.now() + 240_000;
    while (
      (await read("spegel_swarm_provider_records")) < PEERS * KEYS * 0.99 &&
      performance.now() < limitMs
    ) {
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  } finally {
    clearInterval(timer);
  }
  const records = await read("spegel_swarm_provider_records");
  const own = await read("spegel_swarm_own_keys");
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  console.log(
    `\n| \`${program[0] === "dist/spegel" ? "dist/spegel" : "cmd/spegel/main.ts"} registry\`, ${PEERS} peers | |\n|---|---|`,
  );
  console.log(`| records received, own keys | ${records}, ${own} |`);
  console.log(
    `| anonymous MiB, peak and 3 s later | ${peak.toFixed(1)}, ${anonymousMib(daemon.pid).toFixed(1)} |`,
  );
  console.log(
    limit === undefined
      ? "| memory limit | none: needs root and cgroup v1 |"
      : `| in a cgroup of 100 MiB | alive, peak ${limit.peakMib().toFixed(1)} MiB with page cache |`,
  );
}

if (import.meta.main) {
  await measureReceivedRecords();
}
