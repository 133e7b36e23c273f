// SPDX-License-Identifier: Apache-2.0
/**
 * All measurements, one after the other; each compares within one run, because the machine's speed drifts.
 *
 *   node test/bench/main.ts [NAME ...]      names: the files of this folder listed below; default: all
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";

interface Bench {
  readonly name: string;
  readonly about: string;
  readonly needsBuild: boolean;
}

const BENCHES: readonly Bench[] = [
  { name: "data-path", about: "serving and relaying a blob, beside nginx", needsBuild: false },
  { name: "memory", about: "memory of the daemon: idle, 5,000 keys, 64 transfers", needsBuild: true },
  // Needs root: it boots a systemd in namespaces of its own.
  {
    name: "memory-limit",
    about: "memory and start of the daemon in its unit under a real systemd, in each load (root)",
    needsBuild: true,
  },
  { name: "swarm", about: "our swarm beside stock js and Go, 10 and 50 nodes", needsBuild: false },
  { name: "shoots", about: "1,000 Shoots on one seed, with a real API server", needsBuild: true },
  { name: "webhook", about: "the webhook's time to answer, 50 requests in flight", needsBuild: true },
  {
    name: "osc-writes",
    about: "what the webhook adds to writes through a real API server",
    needsBuild: true,
  },
  { name: "swarm-simulation", about: "a swarm of 200, 600 and 2,000 nodes in memory", needsBuild: false },
];

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !BENCHES.some((bench) => bench.name === name));
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(", ")}; there are ${BENCHES.map((bench) => bench.name).join(", ")}`);
  process.exit(2);
}

let failed = 0;
for (const bench of BENCHES) {
  if (wanted.length > 0 && !wanted.includes(bench.name)) continue;
  console.log(`\n== ${bench.name}: ${bench.about}`);
  if (bench.needsBuild && !existsSync("dist/spegel")) {
    console.error('dist/spegel is missing; run "make build"');
    failed++;
    continue;
  }
  const startedAt = performance.now();
  const child = spawn(
    process.execPath,
    ["--experimental-ffi", "--disable-warning=ExperimentalWarning", `test/bench/${bench.name}.ts`],
    { stdio: "inherit" },
  );
  const [code] = (await once(child, "exit")) as [number | null];
  console.log(
    `== ${bench.name}: ${code === 0 ? "done" : "FAILED"} in ${((performance.now() - startedAt) / 1000).toFixed(0)} s`,
  );
  if (code !== 0) failed++;
}
process.exitCode = failed === 0 ? 0 : 1;
