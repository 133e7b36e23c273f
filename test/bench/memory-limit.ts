// SPDX-License-Identifier: Apache-2.0
/**
 * Memory of the daemon in the control group of its own unit, under a real systemd, in each load it has to bear:
 *
 *   node test/bench/memory-limit.ts [--limit=100M] [--environment=NAME=VALUE] [--keys=5000]
 *
 * Needs root and dist/. One table: anonymous memory, all that cannot be dropped, the kernel's own peak (page cache
 * included, so it may reach the limit), buffers of TCP, OOM kills, restarts, and transfers that had to be repeated.
 * After it, the time to start with all content in place.
 */
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { FULL_LOADS, type LoadReport, openSystemdRig, prepareMemoryLoads } from "../kit/systemd-rig/index.ts";

const MIB = 1024 * 1024;
const { values } = parseArgs({
  options: {
    limit: { type: "string", default: "100M" },
    environment: { type: "string", default: "" },
    keys: { type: "string", default: String(FULL_LOADS.ownKeys) },
  },
});
const signal = AbortSignal.timeout(15 * 60_000);

function row(report: LoadReport): void {
  const mib = (bytes: number): string => (bytes / MIB).toFixed(1);
  const {
    load,
    durationMs,
    peakAnonymous,
    peakWithoutPageCache,
    peakGroup,
    peakSockets,
    oomKills,
    restarts,
    turnedAway,
  } = report;
  const cells = [
    load,
    mib(peakAnonymous),
    mib(peakWithoutPageCache),
    mib(peakGroup),
    mib(peakSockets),
    oomKills,
    restarts,
    turnedAway,
    (durationMs / 1000).toFixed(1),
  ];
  console.log(`| ${cells.join(" | ")} |`);
}

await using rig = await openSystemdRig({ signal });
await rig.startBootstrapper([rig.address, rig.network.upstream.address]);
await rig.startNeighbour();
await rig.apply(rig.spegelConfiguration({ memoryMax: values.limit }));
if (values.environment !== "")
  await rig.addDropIn("spegel.service", `[Service]\nEnvironment=${values.environment}\n`);
await rig.untilReady();
await using loads = await prepareMemoryLoads(
  rig,
  { ...FULL_LOADS, ownKeys: Number(values.keys) },
  { signal },
);
console.log(
  `control groups of version ${rig.machine.groupVersion}, MemoryMax=${values.limit}, load average ${loadavg()[0]?.toFixed(1)}\n`,
);
console.log(
  "| load | peak anonymous MiB | peak without page cache MiB | peak of the group MiB | TCP buffers MiB | OOM kills | restarts | repeated | s |",
);
console.log("|---|---|---|---|---|---|---|---|---|");
row(await loads.idle());
row(await loads.ownKeys());
row(await loads.records());
row(await loads.serves());
row(await loads.relays());
row(await loads.together());
row(await loads.overfull());
for (let round = 0; round < 3; round++) {
  const { listeningMs, advertisedMs } = await loads.start();
  console.log(
    `start: listening after ${listeningMs.toFixed(0)} ms, all advertised after ${advertisedMs.toFixed(0)} ms`,
  );
}
