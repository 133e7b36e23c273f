// SPDX-License-Identifier: Apache-2.0
/** Whole nodes, but for libp2p, on a network in memory with a clock of its own: what a swarm of hundreds comes to. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { runSimulation } from "#swarm/testing";

describe("a simulated swarm", () => {
  it("of 200 nodes finds the keys of living nodes in spite of churn, a partition and the loss of a zone", async (t) => {
    const report = await runSimulation({
      nodes: 200,
      seed: 5,
      keysPerNode: 3,
      lookupsPerSecond: 40,
      calmMinutes: 0.5,
      churnMinutes: 1,
      churnPerMinute: 0.1,
      partitionSeconds: 20,
    });
    for (const phase of report.phases) {
      t.diagnostic(JSON.stringify(phase));
      assert.ok(phase.lookups > 0, phase.phase);
      const rate = 1 - phase.failures / phase.lookups;
      assert.ok(rate >= 0.999, `${phase.phase}: success rate ${rate}`);
      assert.ok(phase.hops.max <= 4, `${phase.phase}: ${phase.hops.max} hops`);
      assert.ok(phase.roundTrips.p50 <= 2, `${phase.phase}: ${phase.roundTrips.p50} round trips`);
    }
    assert.ok(report.joinSeconds <= 10, `one swarm after ${report.joinSeconds} s`);
    assert.ok(report.healSeconds <= 60, `healed after ${report.healSeconds} s`);
    assert.ok(report.zoneSeconds <= 30, `quiet after ${report.zoneSeconds} s`);
    assert.ok(report.recordsPerNode.max < 200 * 3);
  });

  it("goes the same way with the same seed, and another with another", async () => {
    const run = (seed: number): ReturnType<typeof runSimulation> =>
      runSimulation({
        nodes: 24,
        seed,
        keysPerNode: 2,
        lookupsPerSecond: 5,
        calmMinutes: 0.1,
        churnMinutes: 0.5,
        churnPerMinute: 0.2,
        partitionSeconds: 5,
      });
    const first = await run(1);
    assert.deepEqual(await run(1), first);
    assert.notEqual((await run(2)).events, first.events);
  });
});
