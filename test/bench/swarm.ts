// SPDX-License-Identifier: Apache-2.0
/**
 * Our swarm beside js-libp2p's kad-dht as is and go-libp2p's kad-dht with Spegel's settings: 10 and 50 nodes each. One
 * swarm is alive at a time, because its idle nodes would take processor time from the others; they take turns
 * `--repeats` times, and a figure is the median of its repeats. Nodes share processes in the same way for all
 * candidates; the two that are measured have one for themselves. Each swarm answers one round of look-ups before those
 * that count.
 *
 *   node test/bench/swarm.ts [--nodes=10,50] [--keys=5000] [--only=ours,stock,go] [--repeats=1] [--skip-memory]
 *
 * Without a Go tool chain the column of Go is left out.
 */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { buildGoPeer, skipReason } from "../interop/go-peer.ts";
import { type Group, startGroup } from "./swarm-group.ts";
import { measureReceivedRecords } from "./swarm-memory.ts";

const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "10,50" },
    keys: { type: "string", default: "5000" },
    only: { type: "string", default: "ours,stock,go" },
    repeats: { type: "string", default: "1" },
    "skip-memory": { type: "boolean", default: false },
  },
});
const keyCount = Number(values.keys);
/** Keys that are looked up, and how often the whole list is. */
const FOUND_KEYS = 160;
const ROUNDS = 3;
const MISSES = 100;
const NEW_KEYS = 60;
/** The stock implementation needs minutes for 5,000 keys; it gets so many, and the time is scaled. */
const STOCK_KEYS = 200;
const REPLICATION = 20;
const SETTLE_LIMIT_MS = 180_000;

interface Candidate {
  readonly name: string;
  readonly command: (ips: readonly string[], isBlind: boolean) => readonly string[];
}

const worker = ["--disable-warning=ExperimentalWarning", "test/bench/swarm-worker.ts"];
const nodeCommand =
  (kind: string): Candidate["command"] =>
  (ips, isBlind) => [process.execPath, ...worker, kind, ...(isBlind ? ["--blind"] : []), ...ips];

async function listCandidates(): Promise<Candidate[]> {
  const candidates: Candidate[] = [
    { name: "ours", command: nodeCommand("ours") },
    { name: "stock", command: nodeCommand("stock") },
  ];
  const reason = skipReason();
  if (reason !== false) {
    console.log(`go is left out: ${reason}`);
  } else {
    const executable = await buildGoPeer();
    candidates.push({
      name: "go",
      command: (ips, isBlind) => [
        executable,
        `-group=${ips.map((ip) => `/ip4/${ip}/tcp/0`).join(",")}`,
        ...(isBlind ? ["-blind"] : []),
      ],
    });
  }
  return candidates.filter(({ name }) => values.only.split(",").includes(name));
}

/** Nodes of one candidate that know each other. */
interface Fleet {
  readonly name: string;
  /** Its first node keeps no records of others and asks, its second one provides; alone in its process. */
  readonly measured: Group;
  readonly others: readonly Group[];
  readonly size: number;
}

async function startFleet(
  candidate: Candidate,
  place: number,
  size: number,
  stack: AsyncDisposableStack,
): Promise<Fleet> {
  const perGroup = size <= 10 ? 2 : 8;
  const ips = (group: number, count: number): string[] =>
    Array.from({ length: count }, (_, i) => `127.${100 + place}.${group}.${i + 1}`);
  const open = async (group: number, count: number): Promise<Group> =>
    stack.use(await startGroup(candidate.command(ips(group, count), group === 0)));
  const measured = await open(0, 2);
  const others: Group[] = [];
  for (let left = size - 2; left > 0; left -= perGroup) {
    others.push(await open(others.length + 1, Math.min(perGroup, left)));
  }
  const [entry] = others[0]?.addresses ?? [];
  if (entry === undefined) throw new Error("a fleet has more than two nodes");
  // The entry itself is not asked to join; its whole group is dialled by the others.
  const groups = [measured, ...others];
  for (const group of groups) await group.request({ op: "join", addrs: [entry] });
  for (const group of groups) await group.request({ op: "refresh" });
  return { name: candidate.name, measured, others, size };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function peersOf(fleet: Fleet): Promise<number[]> {
  const counts = await Promise.all(
    [fleet.measured, ...fleet.others].map((group) => group.request<number[]>({ op: "peers" })),
  );
  return counts.flat();
}

/** Until the routing tables have not grown for three seconds. */
async function untilSettled(fleet: Fleet): Promise<void> {
  const limitMs = performance.now() + SETTLE_LIMIT_MS;
  let counts = await peersOf(fleet);
  for (let quiet = 0; quiet < 6 && performance.now() < limitMs; ) {
    await pause(500);
    const next = await peersOf(fleet);
    quiet = next.join() === counts.join() ? quiet + 1 : 0;
    counts = next;
  }
  console.log(
    `${fleet.name}: ${counts.length} nodes, ${Math.min(...counts)} to ${Math.max(...counts)} in their routing tables`,
  );
}

async function recordsOf(fleet: Fleet): Promise<number> {
  const counts = await Promise.all(
    [fleet.measured, ...fleet.others].map((group) => group.request<number>({ op: "records" })),
  );
  return counts.reduce((total, count) => total + count, 0);
}

const newKeys = (count: number): string[] => Array.from({ length: count }, () => `sha256:${randomUUID()}`);

interface Provided {
  readonly ms: number;
  /** Part of the records that arrived. */
  readonly share: number;
}

/** Until 99 % of the records are where they belong, or nothing has arrived for a while. */
async function measureProvide(
  fleet: Fleet,
  from: { readonly group: Group; readonly node: number },
  keys: readonly string[],
): Promise<Provided> {
  const before = await recordsOf(fleet);
  // The asker keeps none; among more than 20 nodes it is among the nearest of some keys.
  const perKey =
    fleet.size - 1 <= REPLICATION ? fleet.size - 2 : (REPLICATION * (fleet.size - 2)) / (fleet.size - 1);
  const expected = keys.length * perKey;
  const startedAtMs = await from.group.request<number>({ op: "provide", node: from.node, keys });
  let last = { arrived: 0, atMs: Date.now() };
  for (;;) {
    const arrived = (await recordsOf(fleet)) - before;
    const atMs = Date.now();
    if (arrived > last.arrived) last = { arrived, atMs };
    if (arrived >= expected * 0.99) return { ms: atMs - startedAtMs, share: arrived / expected };
    if (atMs - last.atMs > 20_000) {
      return { ms: last.atMs - startedAtMs, share: last.arrived / expected };
    }
    await pause(20);
  }
}

interface Measured {
  readonly first: number[];
  notFound: number;
  readonly miss: number[];
  readonly findable: number[];
  provideMs: number;
  provideShare: number;
}

async function measureOne(candidate: Candidate, place: number, size: number): Promise<Measured> {
  await using stack = new AsyncDisposableStack();
  const fleet = await startFleet(candidate, place, size, stack);
  await untilSettled(fleet);
  const { measured, others } = fleet;
  const result: Measured = {
    first: [],
    notFound: 0,
    miss: [],
    findable: [],
    provideMs: 0,
    provideShare: 0,
  };
  // Each process has provided before it is measured: Go's provider begins when it has seen the network.
  for (const group of [measured, ...others]) {
    const [key] = newKeys(1) as [string];
    await group.request({ op: "provide", node: group === measured ? 1 : 0, keys: [key] });
    await measured.request({ op: "await", node: 0, keys: [key] });
  }
  const keys: string[] = [];
  for (const group of others) {
    const part = newKeys(Math.ceil(FOUND_KEYS / others.length));
    await measureProvide(fleet, { group, node: 0 }, part);
    keys.push(...part);
  }
  for (let round = 0; round <= ROUNDS; round++) {
    keys.sort(() => Math.random() - 0.5);
    const hits = await measured.request<(number | null)[]>({ op: "find", node: 0, keys });
    const misses = await measured.request<number[]>({ op: "miss", node: 0, keys: newKeys(MISSES) });
    if (round === 0) continue; // the programs have been compiled and all connections are there
    for (const hit of hits) {
      if (hit === null) result.notFound++;
      else result.first.push(hit);
    }
    result.miss.push(...misses);
  }
  for (let i = 0; i < NEW_KEYS; i++) {
    const [key] = newKeys(1) as [string];
    const holder = others[i % others.length] as Group;
    const found = measured.request<number>({ op: "await", node: 0, keys: [key] });
    const startedAtMs = await holder.request<number>({ op: "provide", node: 0, keys: [key] });
    result.findable.push((await found) - startedAtMs);
  }
  const count = fleet.name === "stock" ? Math.min(STOCK_KEYS, keyCount) : keyCount;
  const provided = await measureProvide(fleet, { group: measured, node: 1 }, newKeys(count));
  result.provideMs = (provided.ms * keyCount) / count;
  result.provideShare = provided.share;
  return result;
}

function percentile(samples: readonly number[], part: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

const format = (value: number): string =>
  value >= 100
    ? value.toFixed(0)
    : value >= 10
      ? value.toFixed(1)
      : value >= 0.1
        ? value.toFixed(2)
        : value.toPrecision(2);

const ROWS: readonly { readonly title: string; readonly of: (measured: Measured) => number }[] = [
  { title: `provide ${keyCount} keys, ms`, of: ({ provideMs }) => provideMs },
  { title: "find, first hit p50, ms", of: ({ first }) => percentile(first, 0.5) },
  { title: "find, first hit p99, ms", of: ({ first }) => percentile(first, 0.99) },
  { title: "miss p50, ms", of: ({ miss }) => percentile(miss, 0.5) },
  { title: "miss p99, ms", of: ({ miss }) => percentile(miss, 0.99) },
  { title: "findable after provide p50, ms", of: ({ findable }) => percentile(findable, 0.5) },
  { title: "findable after provide p99, ms", of: ({ findable }) => percentile(findable, 0.99) },
  {
    title: "look-ups that found nothing, %",
    of: ({ first, notFound }) => (100 * notFound) / (first.length + notFound),
  },
  { title: "records that arrived, %", of: ({ provideShare }) => 100 * provideShare },
];

const candidates = await listCandidates();
const repeats = Number(values.repeats);
for (const size of values.nodes.split(",").map(Number)) {
  const results = new Map<string, Measured[]>(candidates.map(({ name }) => [name, []]));
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const [place, candidate] of candidates.entries()) {
      results.get(candidate.name)?.push(await measureOne(candidate, place, size));
    }
  }
  const names = candidates.map(({ name }) => name);
  const others = names.filter((name) => name !== "ours" && names.includes("ours"));
  const load = readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 2).join(", ");
  console.log(`\nload average of the last 1 and 5 min: ${load}`);
  console.log(`| ${size} nodes | ${[...names, ...others.map((name) => `ours / ${name}`)].join(" | ")} |`);
  console.log(`|---|${"---|".repeat(names.length + others.length)}`);
  for (const row of ROWS) {
    const figure = (name: string): number => percentile((results.get(name) as Measured[]).map(row.of), 0.5);
    const ratios = others.map((name) =>
      row.title.endsWith("%") ? "" : format(figure("ours") / figure(name)),
    );
    console.log(
      `| ${row.title} | ${[...names.map((name) => format(figure(name))), ...ratios].join(" | ")} |`,
    );
  }
}
if (!values["skip-memory"]) await measureReceivedRecords();
