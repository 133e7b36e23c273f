// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import { FULL_LOADS, type LoadReport, openSystemdRig, prepareMemoryLoads } from "../kit/systemd-rig/index.ts";

const MIB = 1024 * 1024;
const TIMEOUT_MS = 590_000;
const signal = AbortSignal.timeout(TIMEOUT_MS);

// What counts at once is what the daemon has to bear: 20 peers with 5,000 records each, 64 transfers in and 64 out.
// Bodies and contents of its own are fewer, for time; `node test/bench/memory-limit.ts` has all of them.
const LOADS = { ...FULL_LOADS, ownKeys: 500, blobBytes: 4 * MIB };
// A machine that is busy with other tests must not look like a daemon that hangs.
const PATIENT_WATCHDOG_SECONDS = 120;

// From the lightest load to all at once: each begins where the one before it ended.
test("the daemon in the control group of its unit", { timeout: TIMEOUT_MS }, async (t) => {
  await using rig = await openSystemdRig({ signal });
  await rig.startBootstrapper([rig.address, rig.network.upstream.address]);
  await rig.startNeighbour();
  await rig.apply(rig.spegelConfiguration({ watchdogSeconds: PATIENT_WATCHDOG_SECONDS }));
  await rig.untilReady();
  await using loads = await prepareMemoryLoads(rig, LOADS, { signal });
  const limit = (await rig.machine.memory("spegel.service"))?.limit ?? 0;
  assert.equal(limit, 100 * MIB);

  const measures: readonly [string, () => Promise<LoadReport>][] = [
    ["with contents of its own", () => loads.ownKeys()],
    ["with 64 transfers in each direction while 20 peers announce", () => loads.together()],
  ];
  for (const [state, measure] of measures) {
    await t.test(`stays below its limit, is not killed and not restarted ${state}`, async (step) => {
      const report = await measure();
      const { load, peakAnonymous, oomKills, restarts } = report;
      step.diagnostic(`${load}: ${(peakAnonymous / MIB).toFixed(0)} MiB anonymous`);
      assert.deepEqual({ oomKills, restarts }, { oomKills: 0, restarts: 0 }, JSON.stringify(report));
      assert.ok(peakAnonymous > 20 * MIB && peakAnonymous < limit, JSON.stringify(report));
    });
  }
});
