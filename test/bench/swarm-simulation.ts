// SPDX-License-Identifier: Apache-2.0
/**
 * A simulated swarm of 200, 600 and 2,000 nodes: the real code but for libp2p, a network in memory, a clock of its own.
 * The figures follow from the seed alone, whatever the machine does. Larger swarms go through shorter phases. Each size
 * has a process of its own; 2,000 nodes need up to 6 GB.
 *
 *   node test/bench/swarm-simulation.ts [--nodes=200,600,2000] [--keys=3] [--seed=1]
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { parseArgs } from "node:util";
import { runSimulation } from "#swarm/testing";

const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "200,600,2000" },
    keys: { type: "string", default: "3" },
    seed: { type: "string", default: "1" },
    /** Runs in this process: how the bench starts itself for one size. */
    here: { type: "boolean", default: false },
  },
});

/** Much of what a simulated node keeps lives for seconds: a larger young generation saves a quarter of the collector's work. */
const V8_FLAGS = ["--max-old-space-size=6144", "--max-semi-space-size=128", "--min-semi-space-size=128"];
/** Each node asks for a key every four seconds, whatever the size of the swarm. */
const LOOKUPS_PER_NODE_AND_SECOND = 0.25;

interface Phases {
  readonly settleSeconds: number;
  readonly calmMinutes: number;
  readonly churnMinutes: number;
  readonly partitionSeconds: number;
  readonly afterLossSeconds: number;
}

function phasesOf(nodes: number): Phases {
  if (nodes <= 200) {
    return {
      settleSeconds: 60,
      calmMinutes: 2,
      churnMinutes: 3,
      partitionSeconds: 30,
      afterLossSeconds: 60,
    };
  }
  const settleSeconds = nodes > 600 ? 30 : 60;
  return { settleSeconds, calmMinutes: 0.5, churnMinutes: 1, partitionSeconds: 15, afterLossSeconds: 30 };
}

async function simulate(nodes: number): Promise<void> {
  const startedAt = process.hrtime.bigint();
  const report = await runSimulation({
    ...phasesOf(nodes),
    nodes,
    seed: Number(values.seed),
    keysPerNode: Number(values.keys),
    lookupsPerSecond: nodes * LOOKUPS_PER_NODE_AND_SECOND,
    churnPerMinute: 0.1,
    log: (line) => console.error(line),
  });
  console.log(
    `\n| ${nodes} nodes | look-ups | success, % | hops mean / max | round trips p50 / p99 | messages per node and hour: look-ups + upkeep | KB |`,
  );
  console.log("|---|---|---|---|---|---|---|");
  for (const phase of report.phases) {
    const success = (100 * (1 - phase.failures / phase.lookups)).toFixed(2);
    const { hops, roundTrips } = phase;
    const { "look-ups": load, ...upkeep } = phase.messagesPerNodeAndHour;
    console.log(
      `| ${phase.phase} | ${phase.lookups} | ${success} | ${hops.mean} / ${hops.max} | ${roundTrips.p50} / ${roundTrips.p99} | ${load} + ${totalOf(upkeep)} (${list(upkeep)}) | ${Math.round(phase.bytesPerNodeAndHour / 1000)} |`,
    );
  }
  const { recordsPerNode: records, join } = report;
  console.log(
    `a join took ${totalOf(join.messagesPerNode)} messages of a node (${list(join.messagesPerNode)}), ${Math.round(join.bytesPerNode / 1000)} KB, ${join.connectionsPerNode} connections; ` +
      `one swarm ${report.joinSeconds} s after the last start; healed ${report.healSeconds} s after the partition; ` +
      `no failed look-up later than ${report.zoneSeconds} s after the loss of a zone; ` +
      `records per node ${records.min} to ${records.max}, mean ${records.mean}; ` +
      `${report.events} events in ${(Number(process.hrtime.bigint() - startedAt) / 1e9).toFixed(0)} s, ` +
      `${Math.round(process.cpuUsage().user / 1e6)} s of CPU, at most ${Math.round(process.resourceUsage().maxRSS / 1000)} MB`,
  );
}

function totalOf(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

function list(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([kind, count]) => `${kind} ${count}`)
    .join(", ");
}

for (const nodes of values.nodes.split(",").map(Number)) {
  if (values.here) {
    await simulate(nodes);
    continue;
  }
  const args = ["--here", `--nodes=${nodes}`, `--keys=${values.keys}`, `--seed=${values.seed}`];
  const child = spawn(process.execPath, [...V8_FLAGS, import.meta.filename, ...args], { stdio: "inherit" });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) process.exitCode = 1;
}
