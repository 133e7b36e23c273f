// SPDX-License-Identifier: Apache-2.0
/**
 * Time to answer for the webhook of OperatingSystemConfigs, as built, over TLS; beside it a webhook in Go that does as
 * much, and a server on Node that does nothing.
 *
 *   node test/bench/webhook.ts [--seconds=8] [--connections=50] [--sizes=20,100,300] [--subjects=ours,go,bare]
 *
 * The program has one processor, the clients the other. Each request is an UPDATE as gardenlet makes it: the object
 * without, the old object with what the webhook adds. The caches of the webhook are filled, so that no request of its
 * own is on the way; the last column counts those.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { OperatingSystemConfig } from "#api/gardener";
import { sleep } from "#async";
import { cpuSecondsOf } from "./measured-process.ts";
import { printTable } from "./print-table.ts";
import { type Client, measure, openClient, oscOf, requestOf } from "./webhook-load.ts";
import { example, type Subject, startBare, startGo, startOurs } from "./webhook-subjects.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "8" },
    connections: { type: "string", default: "50" },
    sizes: { type: "string", default: "20,100,300" },
    subjects: { type: "string", default: "ours,go,bare" },
  },
});
const durationMs = Number(values.seconds) * 1000;
const connectionCount = Number(values.connections);
const signal = AbortSignal.timeout(30 * 60_000);
/** As long as what ours says to an object without its additions. */
const ANSWER_BYTES = 11_000;

await using parts = new AsyncDisposableStack();
const directory = await mkdtemp(join(tmpdir(), "webhook-bench-"));
parts.defer(() => rm(directory, { recursive: true, force: true }));
const original = (await example("osc-reconcile")) as unknown as OperatingSystemConfig;
const options = { directory, signal };
const STARTS: Readonly<Record<string, () => Promise<Subject>>> = {
  ours: () => startOurs(original, options),
  go: () => startGo(original, options),
  bare: () => startBare(ANSWER_BYTES, options),
};
const subjects: Subject[] = [];
for (const name of values.subjects.split(",")) {
  const start = STARTS[name];
  if (!start) throw new Error(`--subjects: unknown ${name}, there are ${Object.keys(STARTS).join(", ")}`);
  subjects.push(parts.use(await start()));
}

const rows = [
  ["OSC", "load", "webhook", "requests", "per second", "p50", "p99", "max", "processor", "API requests"],
];
for (const size of values.sizes.split(",").map(Number)) {
  const request = requestOf(oscOf(original, size * 1024));
  console.log(`${size} KiB: requests of ${(request.length / 1024).toFixed(0)} KiB`);
  const loads = [
    { name: "one at a time", count: 1, pauseMs: 0 },
    { name: `${connectionCount} clients, each every 500 ms`, count: connectionCount, pauseMs: 500 },
    { name: `${connectionCount} in flight without pause`, count: connectionCount, pauseMs: 0 },
  ];
  for (const load of loads) {
    for (const subject of subjects)
      rows.push([`${size} KiB`, load.name, ...(await measureSubject(subject, request, load))]);
  }
}
printTable("processor time is that of each request", rows);

async function measureSubject(
  subject: Subject,
  request: Buffer,
  load: { readonly count: number; readonly pauseMs: number },
): Promise<string[]> {
  using stack = new DisposableStack();
  const clients: Client[] = [];
  for (let index = 0; index < load.count; index++) clients.push(stack.use(await openClient(subject.address)));
  const answer = await (clients[0] as Client).ask(request);
  if (subject.name !== "Node, no work" && !answer.includes('"patch":'))
    throw new Error(`${subject.name}: no patch: ${answer.toString().slice(0, 500)}`);
  await measure(clients, request, { pauseMs: 0, ms: 1000, signal }); // until the engine has compiled it
  const [apiBefore, cpuBefore] = [subject.apiRequests(), cpuSecondsOf(subject.pid)];
  const times = await measure(clients, request, { pauseMs: load.pauseMs, ms: durationMs, signal });
  const cpuUs = ((cpuSecondsOf(subject.pid) - cpuBefore) * 1_000_000) / times.length;
  await sleep(200, { signal });
  const ms = (share: number): string =>
    `${(times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0).toFixed(2)} ms`;
  return [
    subject.name,
    String(times.length),
    ((times.length * 1000) / durationMs).toFixed(0),
    ms(0.5),
    ms(0.99),
    ms(1),
    `${cpuUs.toFixed(0)} us`,
    String(subject.apiRequests() - apiBefore),
  ];
}
