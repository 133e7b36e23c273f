// SPDX-License-Identifier: Apache-2.0
/**
 * Measures a pull with each fault and writes docs/faults.md: `node --experimental-ffi test/nodes/faults.ts` as root.
 * With words after it only the faults that contain one are played, and their rows printed.
 */
import { writeFile } from "node:fs/promises";
import { cpus, release } from "node:os";
import { fileURLToPath } from "node:url";
import { findContainerdBinaries, openRig, type Rig } from "../kit/node-rig/index.ts";
import {
  type FaultResult,
  faultScenarios,
  LINK_BITS_PER_SECOND,
  nodeOf,
  playFault,
  shapeLinks,
} from "./fault-scenarios.ts";
import { MIB } from "./testing.ts";

const LAYER_MIB = 200;
// WatchdogSec of the unit that nodes get.
const WATCHDOG_MS = 5_000;
const BASELINE_RUNS = 3;
const PULLER = 2;
const REPORT = fileURLToPath(new URL("../../docs/faults.md", import.meta.url));

const signal = AbortSignal.timeout(30 * 60_000);
const { found, missing } = await findContainerdBinaries({ signal });
if (missing !== undefined) throw new Error(missing);
await using rig = await openRig({ containerds: found, program: ["dist/spegel"], signal });
await shapeLinks(rig);

console.log("without mirror");
const baselines: number[] = [];
for (let run = 0; run < BASELINE_RUNS; run++) baselines.push(await pullWithoutMirror(rig, `baseline-${run}`));
const baseline = baselines.toSorted((left, right) => left - right)[Math.floor(BASELINE_RUNS / 2)] ?? 0;
const nothing = { name: "none", holders: 1, upstream: "nothing" } as const;
const results: FaultResult[] = [];
const words = process.argv.slice(2);
const scenarios = [nothing, ...faultScenarios({ watchdogMs: WATCHDOG_MS })].filter(
  ({ name }) => words.length === 0 || words.some((word) => name.includes(word)),
);
for (const [index, scenario] of scenarios.entries()) {
  console.log(`${scenario.name}, ${scenario.holders} holder(s)`);
  const options = { seed: `table-${index}`, layerMib: LAYER_MIB, puller: PULLER, signal };
  results.push(await playFault(rig, scenario, options));
}
if (words.length === 0) {
  await writeFile(REPORT, report(results));
  console.log(`${REPORT} written`);
} else {
  console.log([`without mirror ${baseline.toFixed(1)} s`, ...results.map(row)].join("\n"));
}

/** Seconds of a pull straight from the upstream. */
async function pullWithoutMirror(on: Rig, seed: string): Promise<number> {
  const image = await on.addImage(`faults/${seed}`, "1", { seed, layerSizesBytes: [LAYER_MIB * MIB] });
  await on.spegels[PULLER]?.setMirror(false);
  const startedMs = performance.now();
  await nodeOf(on, PULLER).cri.pull(image.name);
  const seconds = (performance.now() - startedMs) / 1000;
  await on.spegels[PULLER]?.setMirror(true);
  await nodeOf(on, PULLER).cri.remove(image.name);
  return seconds;
}

function report(all: readonly FaultResult[]): string {
  const versions = [...rig.containerds.entries()].map(([node, each]) =>
    node === PULLER ? `${each.version} (pulls)` : each.version,
  );
  const wrong = all.filter((result) => result.finalDigest !== result.layerDigest).length;
  const lines = [
    "# Faults during a pull",
    "",
    "Written by `test/nodes/faults.ts` (root). `test/nodes/faults.test.ts` checks the same without times.",
    "",
    `- Three nodes in network namespaces, containerd ${versions.join(", ")}, and an upstream over TLS. Every link`,
    `  sends at most ${LINK_BITS_PER_SECOND / 1e6} Mbit/s, a peer's as well as the upstream's.`,
    `- Each row has a new image with one layer of ${LAYER_MIB} MiB, pulled through CRI and unpacked. The fault strikes when`,
    "  a third of the layer has been received, and lasts until the pull has ended.",
    `- *extra* is the time beyond a pull without a mirror: ${baseline.toFixed(1)} s, the median of ${baselines
      .toSorted((left, right) => left - right)
      .map((each) => each.toFixed(1))
      .join(", ")} s in the same run.`,
    "- *upstream* is what the upstream sent of the layer. No byte was fetched twice where it is the rest or less.",
    `- Linux ${release()}, ${cpus().length} cores (${cpus()[0]?.model ?? "unknown"}) for everything, other work on them: times are good to`,
    "  about 30 %.",
    "",
    "| fault | holders | pull | seconds | extra | upstream, MiB |",
    "|---|---|---|---|---|---|",
    ...all.map((result) => row(result)),
    "",
    `Layers that ended on the node with other bytes than their digest says: ${wrong}.`,
    "",
    "- *second call succeeds*: with wrong bytes containerd refuses the finished layer, and that call of PullImage is lost.",
    "  The kubelet's next one has the peer read through before a byte of it goes on, and takes another source. Its pause",
    "  between the two (10 s) is not counted here. One layer's time is lost with the first call, another by reading through.",
    "- *foreign*: a stand-in for a peer with another mirror, which goes on sending what is wrong.",
    `- *local daemon frozen*: containerd waits for minutes on a mirror that has accepted and says nothing; it has no time`,
    `  limit there that a mirror could set. The systemd watchdog kills the daemon after ${WATCHDOG_MS / 1000} s, played here by the test, and`,
    "  containerd goes on at once. The real watchdog in a real systemd, with a pull under way, is the step",
    '  "is killed by the watchdog when it hangs" of `test/nodes/systemd.test.ts`.',
    "- *containerd restarted*: the call ends with the process; the next one goes on where the file of the first ended.",
    "",
  ];
  return lines.join("\n");
}

function row(result: FaultResult): string {
  const { scenario, calls, seconds, upstreamBytes } = result;
  const pull = calls === 1 ? "succeeds" : "second call succeeds";
  const extra = seconds - baseline;
  return `| ${scenario.name} | ${scenario.holders} | ${pull} | ${seconds.toFixed(1)} | ${extra < 0 ? "−" : "+"}${Math.abs(extra).toFixed(1)} | ${(upstreamBytes / MIB).toFixed(0)} |`;
}
