// SPDX-License-Identifier: Apache-2.0
/**
 * What the webhook adds to the writes of node configurations: a real API server, the extension as built, writers as
 * gardenlet is one; the same writes in a namespace that the webhook is not asked about.
 *
 *   node test/bench/osc-writes.ts [--seconds=5] [--sizes=20,100] [--writers=1,5,50] [--webhook-processor=0]
 *
 * `review` is the mean time of the webhook as the API server measured it: with its own encoding of the request and its
 * own use of the patch. `in 10 ms` is the share of requests that the webhook answered within that time of their last byte,
 * by its own metric. All parts share the processors of one machine, so that many writers wait for the API server; with
 * `--webhook-processor` the webhook has one and the rest the others.
 */
import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import type { OperatingSystemConfig } from "#api/gardener";
import { startLandscape } from "../cluster/landscape.ts";
import { installExtension } from "../cluster/run-extension.ts";
import { cpuSecondsOf } from "./measured-process.ts";
import { printTable } from "./print-table.ts";
import { oscOf } from "./webhook-load.ts";
import { example } from "./webhook-subjects.ts";

process.env["PROGRAMS"] = "built";
const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "5" },
    sizes: { type: "string", default: "20,100" },
    writers: { type: "string", default: "1,5,50" },
    "webhook-processor": { type: "string" },
  },
});
const durationMs = Number(values.seconds) * 1000;
const WITHIN = /^registry_spegel_webhook_duration_seconds_bucket\{le="(0\.01|\+Inf)"\} (\S+)$/gm;
const METRIC = /^apiserver_admission_webhook_admission_duration_seconds_(sum|count)\{([^}]*)\} (\S+)$/gm;

const webhookProcessor = values["webhook-processor"];
if (webhookProcessor !== undefined) {
  const all = Array.from({ length: availableParallelism() }, (_, index) => String(index));
  pin(process.pid, all.filter((each) => each !== webhookProcessor).join(",")); // what is started stays there
}

await using landscape = await startLandscape({ lifetimeMs: 1_800_000 });
await using installation = await installExtension(landscape);
await using replica = await installation.spawn();
if (webhookProcessor !== undefined) pin(replica.process.pid, webhookProcessor);
const { gardenlet, seed } = landscape;
const namespaces = { without: await gardenlet.addShoot(), with: await gardenlet.addShoot() };
await gardenlet.enable(namespaces.with);
await gardenlet.awaitReady(namespaces.with);
const original = (await example("osc-reconcile")) as unknown as OperatingSystemConfig;

const rows = [
  [
    "OSC",
    "writers",
    "webhook",
    "per second",
    "p50",
    "p99",
    "review",
    "in 10 ms",
    "processor: API server",
    "webhook",
  ],
];
for (const size of values.sizes.split(",").map(Number)) {
  const osc = withoutRegistries(oscOf(original, size * 1024));
  for (const writers of values.writers.split(",").map(Number)) {
    for (const [webhook, namespace] of Object.entries(namespaces)) {
      const objects = Array.from({ length: writers }, (_, index) => {
        const name = `pool-${size}-${writers}-${index}`;
        return { ...osc, metadata: { ...osc.metadata, name, namespace } };
      });
      for (const object of objects) await send("POST", pathOf(object), asWritten(object));
      await write(objects, 1000); // until the engine has compiled it
      const before = await observe();
      const times = await write(objects, durationMs);
      const after = await observe();
      const each = (key: keyof typeof before): string =>
        `${((after[key] - before[key]) / times.length).toFixed(1)} ms`;
      const at = (share: number): string => `${(times[Math.floor(times.length * share)] ?? 0).toFixed(1)} ms`;
      const reviews = after.reviews - before.reviews;
      const review = reviews === 0 ? "" : `${((after.reviewMs - before.reviewMs) / reviews).toFixed(1)} ms`;
      const answered = after.answered - before.answered;
      const within =
        answered === 0
          ? ""
          : `${(((after.answeredIn10Ms - before.answeredIn10Ms) * 100) / answered).toFixed(2)} %`;
      const perSecond = ((times.length * 1000) / durationMs).toFixed(0);
      rows.push([
        `${size} KiB`,
        `${writers}`,
        webhook,
        perSecond,
        at(0.5),
        at(0.99),
        review,
        within,
        each("serverMs"),
        each("webhookMs"),
      ]);
      console.log(`${size} KiB, ${writers} writers, ${webhook} webhook: ${times.length} writes`);
    }
  }
}
printTable("processor time is that of each write", rows);

function pin(pid: number, processors: string): void {
  execFileSync("taskset", ["--all-tasks", "--cpu-list", "--pid", processors, String(pid)], {
    stdio: "ignore",
  });
}

/**
 * Each writer writes its object again and again, as gardenlet does: without what webhooks add. The milliseconds of each
 * write, in ascending order.
 */
async function write(objects: readonly OperatingSystemConfig[], ms: number): Promise<number[]> {
  const untilMs = performance.now() + ms;
  const times: number[] = [];
  await Promise.all(
    objects.map(async (object) => {
      while (performance.now() < untilMs) {
        const { metadata, spec } = asWritten(object);
        const patch = { metadata: { annotations: metadata.annotations }, spec };
        const startedMs = performance.now();
        await send("PATCH", `${pathOf(object)}/${object.metadata.name}`, patch);
        times.push(performance.now() - startedMs);
      }
    }),
  );
  return times.sort((a, b) => a - b);
}

async function send(method: "POST" | "PATCH", target: string, body: object): Promise<void> {
  const contentType = method === "PATCH" ? "application/merge-patch+json" : "application/json";
  const answer = await seed.admin.call(method, target, { body, contentType });
  if (answer.status > 201) throw new Error(`${method} ${target}: ${JSON.stringify(answer.body)}`);
}

function pathOf({ metadata }: OperatingSystemConfig): string {
  return `/apis/extensions.gardener.cloud/v1alpha1/namespaces/${metadata.namespace}/operatingsystemconfigs`;
}

function asWritten(object: OperatingSystemConfig): OperatingSystemConfig {
  const timestamp = new Date().toISOString();
  const annotations = { "gardener.cloud/operation": "reconcile", "gardener.cloud/timestamp": timestamp };
  return { ...object, metadata: { ...object.metadata, annotations } };
}

function withoutRegistries(osc: OperatingSystemConfig): OperatingSystemConfig {
  const { criConfig } = osc.spec;
  if (!criConfig?.containerd) return osc;
  const containerd = { sandboxImage: criConfig.containerd.sandboxImage };
  return { ...osc, spec: { ...osc.spec, criConfig: { ...criConfig, containerd } } };
}

async function observe(): Promise<{
  reviews: number;
  reviewMs: number;
  answered: number;
  answeredIn10Ms: number;
  serverMs: number;
  webhookMs: number;
}> {
  const { body } = await seed.admin.call("GET", "/metrics");
  const own = [...String(body).matchAll(METRIC)].filter(([, , labels]) =>
    labels?.includes("registry-spegel"),
  );
  const ownMetrics = await (await fetch(`http://${replica.metricsAddress}/metrics`)).text();
  const answers = Object.fromEntries(
    [...ownMetrics.matchAll(WITHIN)].map(([, le = "", count]) => [le, Number(count)]),
  );
  const total = (kind: string): number =>
    own.filter(([, which]) => which === kind).reduce((sum, [, , , value]) => sum + Number(value), 0);
  return {
    reviews: total("count"),
    reviewMs: total("sum") * 1000,
    answered: answers["+Inf"] ?? 0,
    answeredIn10Ms: answers["0.01"] ?? 0,
    serverMs: cpuSecondsOf(seed.server.pid) * 1000,
    webhookMs: cpuSecondsOf(replica.process.pid) * 1000,
  };
}
