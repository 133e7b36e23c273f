// SPDX-License-Identifier: Apache-2.0
/**
 * The data path beside nginx, in one interleaved run: serving a file from the page cache, relaying a peer, small
 * objects. The measured server has one processor, the sink (and the peer behind a relay) the other.
 *
 *   node test/bench/data-path.ts [--size-mib=1024] [--rounds=5] [--only=WORD]
 *
 * Ratios matter; absolute figures are those of the machine. Without nginx only our own figures are printed.
 */
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { firstLine, type MeasuredProcess, output, startPinned } from "./measured-process.ts";
import { nginxVersion, startNginx } from "./nginx.ts";
import type { SinkResult, SinkTask } from "./sink.ts";

const MIB = 1024 * 1024;
const SERVER_CPU = "0";
const SINK_CPU = "1";
const STREAMS = 32;
/** As the daemon runs: a small heap. */
const DAEMON_FLAGS = ["--no-warnings", "--max-semi-space-size=1", "--max-old-space-size=40"];

interface Candidate {
  readonly name: string;
  readonly port: number;
  readonly pathPrefix: string;
  readonly server: MeasuredProcess;
}

interface Case {
  readonly title: string;
  /** The first candidate is what the others are compared with. */
  readonly candidates: readonly Candidate[];
  readonly task: Omit<SinkTask, "port">;
  readonly unit: "GiB/s" | "req/s";
}

interface Sample {
  readonly rate: number;
  readonly cpu: number;
  readonly peakMib: number;
  readonly firstByteMs: number;
}

const { values } = parseArgs({
  options: {
    "size-mib": { type: "string", default: "1024" },
    rounds: { type: "string", default: "5" },
    only: { type: "string", default: "" },
  },
});
const sizeMib = Number(values["size-mib"]);
const rounds = Number(values.rounds);
const streamMib = Math.max(1, Math.round(sizeMib / 16));

await main();

async function main(): Promise<void> {
  if (availableParallelism() < 2) throw new Error("this bench needs two processors");
  const folder = mkdtempSync(join(roomyFolder(), "data-path-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => process.exit(130));
  try {
    const filesFolder = join(folder, "files");
    writeFiles(filesFolder);
    await using stack = new AsyncDisposableStack();
    for (const each of await prepare(stack, folder, filesFolder)) {
      if (each.title.includes(values.only)) print(each, await measure(each));
    }
  } finally {
    remove();
  }
}

/** A tmpfs if it has room: bytes then never come from a disk. */
function roomyFolder(): string {
  try {
    const { bavail, bsize } = statfsSync("/dev/shm");
    if (bavail * bsize > 3 * sizeMib * MIB) return "/dev/shm";
  } catch {
    // no such folder on this machine
  }
  return tmpdir();
}

function writeFiles(folder: string): void {
  mkdirSync(folder);
  writeFileSync(join(folder, "large"), Buffer.alloc(sizeMib * MIB, "0123456789abcdef~"));
  for (let index = 0; index < 8; index++) {
    writeFileSync(join(folder, `medium-${index}`), Buffer.alloc(streamMib * MIB, `${index}-medium-`));
  }
  writeFileSync(join(folder, "small"), Buffer.alloc(4096, "small"));
}

async function prepare(stack: AsyncDisposableStack, folder: string, filesFolder: string): Promise<Case[]> {
  const nginx = nginxVersion();
  process.stdout.write(
    `nginx: ${nginx ?? "not installed, so there is nothing to compare with"}; node ${process.version}; ${rounds} rounds\n`,
  );
  const node = async (cpu: string, ...args: string[]): Promise<{ server: MeasuredProcess; port: number }> => {
    const program = join(import.meta.dirname, "mirror-server.ts");
    const server = stack.use(startPinned(cpu, [process.execPath, ...DAEMON_FLAGS, program, ...args]));
    return { server, ...(JSON.parse(await firstLine(server.child)) as { port: number }) };
  };
  const ours = await node(SERVER_CPU, "serve", filesFolder, "sendfile");
  const ring = await node(SERVER_CPU, "serve", filesFolder, "ring");
  const peer =
    nginx === undefined
      ? await node(SINK_CPU, "serve", filesFolder)
      : stack.use(await startNginx({ cpu: SINK_CPU, folder, filesFolder }));
  const relay = await node(SERVER_CPU, "relay", String(peer.port));
  const reference =
    nginx === undefined
      ? undefined
      : stack.use(await startNginx({ cpu: SERVER_CPU, folder, filesFolder, peerPort: peer.port }));

  const candidates = (name: string, pathPrefix: string, own: readonly Candidate[]): Candidate[] =>
    reference === undefined
      ? [...own]
      : [{ name, port: reference.port, pathPrefix, server: reference }, ...own];
  const serving = candidates("nginx sendfile", "/", [
    { name: "sendContent, sendfile", ...ours, pathPrefix: "/" },
    { name: "sendContent, ring", ...ring, pathPrefix: "/" },
  ]);
  const relaying = candidates("nginx proxy_pass", "/proxied/", [
    ...candidates("nginx proxy_pass, default buffers", "/default/", []),
    { name: "relayTo", ...relay, pathPrefix: "/" },
  ]);
  const one = { paths: ["large"], connections: 1, requests: 3, keepAlive: false };
  const many = {
    paths: Array.from({ length: 8 }, (_, index) => `medium-${index}`),
    connections: STREAMS,
    requests: STREAMS,
    keepAlive: false,
  };
  const small = { paths: ["small"], connections: STREAMS, requests: 20 * sizeMib, keepAlive: true };
  return [
    { title: `serve ${sizeMib} MiB, 1 stream`, candidates: serving, task: one, unit: "GiB/s" },
    { title: `serve ${STREAMS} x ${streamMib} MiB`, candidates: serving, task: many, unit: "GiB/s" },
    { title: `relay ${sizeMib} MiB, 1 stream`, candidates: relaying, task: one, unit: "GiB/s" },
    { title: `relay ${STREAMS} x ${streamMib} MiB`, candidates: relaying, task: many, unit: "GiB/s" },
    { title: "serve 4 KiB from memory", candidates: serving.slice(0, -1), task: small, unit: "req/s" },
    { title: "relay 4 KiB", candidates: relaying, task: small, unit: "req/s" },
  ];
}

/** One round to warm up, then all candidates in turn, so that a disturbance meets each of them. */
async function measure(each: Case): Promise<Map<Candidate, Sample[]>> {
  const samples = new Map(each.candidates.map((candidate) => [candidate, [] as Sample[]]));
  for (let round = 0; round <= rounds; round++) {
    for (const candidate of each.candidates) {
      const sample = await sampleOf(candidate, each);
      if (round > 0) samples.get(candidate)?.push(sample);
    }
  }
  return samples;
}

async function sampleOf({ server, port, pathPrefix, name }: Candidate, each: Case): Promise<Sample> {
  const task: SinkTask = { ...each.task, port, paths: each.task.paths.map((path) => pathPrefix + path) };
  server.resetPeak();
  const before = server.cpuSeconds();
  const sink = join(import.meta.dirname, "sink.ts");
  await using running = startPinned(SINK_CPU, [
    process.execPath,
    "--no-warnings",
    sink,
    JSON.stringify(task),
  ]);
  const result = JSON.parse(await output(running.child)) as SinkResult;
  if (result.bad > 0) throw new Error(`${name}: ${result.bad} of ${result.requests} answers were wrong`);
  const gib = result.bytes / MIB / 1024;
  const amount = each.unit === "GiB/s" ? gib : result.requests;
  return {
    rate: amount / result.seconds,
    cpu: (server.cpuSeconds() - before) / (each.unit === "GiB/s" ? gib : result.requests / 100_000),
    peakMib: server.peakMib(),
    firstByteMs: result.firstByteMs,
  };
}

function print(each: Case, samples: ReadonlyMap<Candidate, readonly Sample[]>): void {
  const cpuUnit = each.unit === "GiB/s" ? "CPU s/GiB" : "CPU s/100k";
  const rows = [["", each.unit, "ratio", "min-max", cpuUnit, "ratio", "peak MiB", "first byte ms"]];
  const reference = samples.get(each.candidates[0] as Candidate) ?? [];
  for (const [candidate, own] of samples) {
    const rate = median(own.map((sample) => sample.rate));
    const cpu = median(own.map((sample) => sample.cpu));
    // Round by round: a neighbour on the machine disturbs the samples of one round alike.
    const rateRatio = median(
      own.map((sample, round) => sample.rate / (reference[round]?.rate ?? Number.NaN)),
    );
    const cpuRatio = median(own.map((sample, round) => sample.cpu / (reference[round]?.cpu ?? Number.NaN)));
    const rates = own.map((sample) => sample.rate);
    rows.push([
      candidate.name,
      figure(rate),
      rateRatio.toFixed(2),
      `${figure(Math.min(...rates))}-${figure(Math.max(...rates))}`,
      cpu.toFixed(3),
      cpuRatio.toFixed(2),
      median(own.map((sample) => sample.peakMib)).toFixed(0),
      median(own.map((sample) => sample.firstByteMs)).toFixed(1),
    ]);
  }
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  const lines = rows.map(
    (row) => `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`,
  );
  lines.splice(1, 0, `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`);
  process.stdout.write(`\n### ${each.title}\n\n${lines.join("\n")}\n`);
}

function figure(rate: number): string {
  return rate > 1000 ? rate.toFixed(0) : rate.toFixed(2);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
