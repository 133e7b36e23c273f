// SPDX-License-Identifier: Apache-2.0
/**
 * A group of swarm nodes under measurement, see `swarm-group.ts`.
 *
 *   node test/bench/swarm-worker.ts ours|stock [--blind] IP...
 *
 * With --blind the first node keeps no records of others, so that all its look-ups go through the network.
 */
import { createInterface } from "node:readline";
import type { GroupRequest } from "./swarm-group.ts";
import { openOurNode } from "./swarm-our-node.ts";
import { openStockNode } from "./swarm-stock-node.ts";

/** One node, on whatever library. */
export interface BenchNode {
  readonly address: string;
  join(addresses: readonly string[]): Promise<void>;
  refresh(): Promise<void>;
  peerCount(): number;
  /** Records of others that were stored here, each once. */
  recordCount(): number;
  /** Returns at once. */
  provide(keys: readonly string[]): void;
  /** The providers of a key, others than this node, as they are found. */
  find(key: string, signal: AbortSignal): AsyncIterable<unknown>;
}

const [kind, ...rest] = process.argv.slice(2);
const ips = rest.filter((word) => !word.startsWith("--"));
const isBlind = rest.includes("--blind");
const open = kind === "stock" ? openStockNode : openOurNode;
const nodes: BenchNode[] = [];
for (const [i, ip] of ips.entries()) nodes.push(await open(ip, { blind: isBlind && i === 0 }));

const epochMs = (): number => performance.timeOrigin + performance.now();

async function firstHit(node: BenchNode, key: string): Promise<number | null> {
  const startedAtMs = performance.now();
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), 5_000);
  try {
    for await (const _ of node.find(key, stop.signal)) return performance.now() - startedAtMs;
    return null;
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

async function wholeSearch(node: BenchNode, key: string): Promise<number> {
  const startedAtMs = performance.now();
  for await (const _ of node.find(key, AbortSignal.timeout(30_000))) throw new Error(`${key} has a provider`);
  return performance.now() - startedAtMs;
}

async function findSoon(node: BenchNode, key: string): Promise<number> {
  const limitMs = performance.now() + 60_000;
  while (performance.now() < limitMs) {
    if ((await firstHit(node, key)) !== null) return epochMs();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error("not found within a minute");
}

async function inOrder<T>(keys: readonly string[], measure: (key: string) => Promise<T>): Promise<T[]> {
  const measured: T[] = [];
  for (const key of keys) measured.push(await measure(key));
  return measured;
}

async function answer({ op, node = 0, keys = [], addrs = [] }: GroupRequest): Promise<unknown> {
  const chosen = nodes[node] as BenchNode;
  switch (op) {
    case "join":
      return Promise.all(nodes.map((each) => each.join(addrs)));
    case "refresh":
      return Promise.all(nodes.map((each) => each.refresh()));
    case "peers":
      return nodes.map((each) => each.peerCount());
    case "records":
      return nodes.reduce((total, each) => total + each.recordCount(), 0);
    case "provide": {
      const startedAtMs = epochMs();
      chosen.provide(keys);
      return startedAtMs;
    }
    case "find":
      return inOrder(keys, (key) => firstHit(chosen, key));
    case "miss":
      return inOrder(keys, (key) => wholeSearch(chosen, key));
    case "await":
      return findSoon(chosen, keys[0] as string);
  }
}

console.log(JSON.stringify({ addrs: nodes.map(({ address }) => address) }));
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as GroupRequest;
  const reply = await answer(request).then(
    (result) => ({ op: request.op, result }),
    (error: unknown) => ({ op: request.op, error: String(error) }),
  );
  console.log(JSON.stringify(reply));
}
process.exit(0);
