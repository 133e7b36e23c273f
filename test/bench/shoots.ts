// SPDX-License-Identifier: Apache-2.0
/**
 * Many Shoots on one seed: a real API server, the extension as a process, stand-ins for the rest of Gardener.
 *
 *   node test/bench/shoots.ts [SHOOTS=1000] [NODES=1000]
 *
 * Prints how long the extension takes for all of them at first and again, what it asks of the API server for each, its
 * memory, and that of one bootstrapper.
 */
import { readFileSync } from "node:fs";
import { EXTENSION_NAME } from "#extension";
import { startLandscape } from "../cluster/landscape.ts";
import { createNodes } from "../cluster/nodes.ts";
import { installExtension } from "../cluster/run-extension.ts";
import { startWorkload } from "../cluster/stand-ins/workload.ts";

process.env["PROGRAMS"] = "built";
const shootCount = Number(process.argv[2] ?? 1000);
const nodeCount = Number(process.argv[3] ?? 1000);

await using landscape = await startLandscape({ lifetimeMs: 7_200_000 });
await using installation = await installExtension(landscape);
await using replica = await installation.spawn();
const { gardenlet, seed } = landscape;
const { pid } = replica.process;
const rows: string[][] = [["", "time", "per Shoot", "requests/Shoot", "CPU/Shoot", "RSS", "anonymous"]];

const namespaces: string[] = [];
for (let index = 0; index < shootCount; index++) namespaces.push(await gardenlet.addShoot());
await measure("first reconciliation", (namespace) => gardenlet.enable(namespace));
await measure("second reconciliation", (namespace) => gardenlet.deploy(namespace));
await createNodes(landscape.shoot.admin, nodeCount);
await using workload = await startWorkload(landscape, namespaces[0] as string);
await workload.settled();
const { rss, anonymous } = memoryOf(workload.pid);
rows.push([`one bootstrapper, ${nodeCount} nodes`, "", "", "", "", rss, anonymous]);
const widths = (rows[0] as string[]).map((_, column) =>
  Math.max(...rows.map((row) => (row[column] ?? "").length)),
);
console.log(`${shootCount} Shoots, 5 at a time`);
for (const row of rows) console.log(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));

async function measure(name: string, ask: (namespace: string) => Promise<void>): Promise<void> {
  seed.front.clearRequests();
  const cpu = cpuSecondsOf(pid);
  const startedMs = performance.now();
  const waiting = [...namespaces];
  const count = { requests: 0 };
  seed.front.gate = ({ userAgent }) => {
    if (userAgent.startsWith(EXTENSION_NAME)) count.requests++;
    return "pass";
  };
  // As many gardenlet workers as Gardener's default, so that the extension always has something to do.
  const worker = async (): Promise<void> => {
    for (let namespace = waiting.pop(); namespace !== undefined; namespace = waiting.pop()) {
      await ask(namespace);
      await gardenlet.awaitReady(namespace);
    }
  };
  await Promise.all(Array.from({ length: 20 }, worker));
  const seconds = (performance.now() - startedMs) / 1000;
  const { rss, anonymous } = memoryOf(pid);
  rows.push([
    name,
    `${seconds.toFixed(1)} s`,
    `${((seconds * 1000) / shootCount).toFixed(0)} ms`,
    (count.requests / shootCount).toFixed(1),
    `${(((cpuSecondsOf(pid) - cpu) * 1000) / shootCount).toFixed(0)} ms`,
    rss,
    anonymous,
  ]);
}

function memoryOf(process: number): { readonly rss: string; readonly anonymous: string } {
  const text = readFileSync(`/proc/${process}/status`, "utf8");
  const mib = (field: string): string =>
    `${(Number(new RegExp(`${field}:\\s+(\\d+)`).exec(text)?.[1]) / 1024).toFixed(0)} MiB`;
  return { rss: mib("VmRSS"), anonymous: mib("RssAnon") };
}

function cpuSecondsOf(process: number): number {
  const fields = readFileSync(`/proc/${process}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
