// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import {
  FULL_LOADS,
  type LoadReport,
  type MemoryLoads,
  openSystemdRig,
  prepareMemoryLoads,
  type SystemdRig,
} from "../kit/systemd-rig/index.ts";

const MIB = 1024 * 1024;
const signal = AbortSignal.timeout(290_000);

// `make bench` has the figures with bodies of 64 MiB and 5,000 contents; what counts at once is the same here.
const LOADS = { ...FULL_LOADS, ownKeys: 500, blobs: 8, blobBytes: 8 * MIB };

describe("the daemon in the control group of its unit", () => {
  let rig: SystemdRig;
  let loads: MemoryLoads;
  before(async () => {
    rig = await openSystemdRig({ signal });
    await rig.startBootstrapper([rig.address, rig.network.upstream.address]);
    await rig.startNeighbour();
    await rig.apply(rig.spegelConfiguration());
    await rig.untilReady();
    loads = await prepareMemoryLoads(rig, LOADS, { signal });
  });
  after(async () => {
    await loads?.[Symbol.asyncDispose]();
    await rig?.[Symbol.asyncDispose]();
  });

  for (const load of ["ownKeys", "serves", "relays", "overfull"] as const) {
    it(`is neither killed nor restarted: ${load}`, async (t) => {
      const report: LoadReport = await loads[load]();
      t.diagnostic(`${report.load}: ${(report.peakAnonymous / MIB).toFixed(0)} MiB anonymous`);
      assert.deepEqual([report.oomKills, report.restarts], [0, 0], JSON.stringify(report));
      assert.ok(report.peakAnonymous > 20 * MIB, "nothing was measured");
    });
  }
});
