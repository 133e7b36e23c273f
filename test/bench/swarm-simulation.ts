// SPDX-License-Identifier: Apache-2.0
/**
 * A simulated swarm of 200 and 600 nodes: the real code but for libp2p, a network in memory, a clock of its own. The
 * figures follow from the seed alone, whatever the machine does. More than 200 nodes go through shorter phases.
 *
 *   node test/bench/swarm-simulation.ts [--nodes=200,600] [--keys=3] [--seed=1]
 */
import { parseArgs } from "node:util";
import { runSimulation } from "#swarm/testing";

const { values } = parseArgs({
  options: {
    nodes: { type: "string", default: "200,600" },
    keys: { type: "string", default: "3" },
    seed: { type: "string", default: "1" },
  },
});

for (const nodes of values.nodes.split(",").map(Number)) {
  const startedAt = process.hrtime.bigint();
  const report = await runSimulation({
    nodes,
    seed: Number(values.seed),
    keysPerNode: Number(values.keys),
    lookupsPerSecond: 50,
    calmMinutes: nodes > 200 ? 0.5 : 2,
    churnMinutes: nodes > 200 ? 0.5 : 3,
    churnPerMinute: 0.1,
    partitionSeconds: nodes > 200 ? 15 : 30,
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
    const total = Object.values(upkeep).reduce((sum, count) => sum + count, 0);
    const parts = Object.entries(upkeep).map(([kind, count]) => `${kind} ${count}`);
    console.log(
      `| ${phase.phase} | ${phase.lookups} | ${success} | ${hops.mean} / ${hops.max} | ${roundTrips.p50} / ${roundTrips.p99} | ${load} + ${total} (${parts.join(", ")}) | ${Math.round(phase.bytesPerNodeAndHour / 1000)} |`,
    );
  }
  const { recordsPerNode: records } = report;
  console.log(
    `one swarm ${report.joinSeconds} s after the last start; healed ${report.healSeconds} s after the partition; ` +
      `no failed look-up later than ${report.zoneSeconds} s after the loss of a zone; ` +
      `records per node ${records.min} to ${records.max}, mean ${records.mean}; ` +
      `${report.events} events in ${(Number(process.hrtime.bigint() - startedAt) / 1e9).toFixed(0)} s`,
  );
}
