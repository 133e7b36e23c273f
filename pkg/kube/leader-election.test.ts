// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { type ApiServer, startApiServer } from "#kit/api-server";
import { silentLogger } from "#log";
import {
  beat,
  createKubeClient,
  formatMicroTime,
  formatTime,
  type KubeClient,
  parseKubeConfig,
  runAsLeader,
} from "./index.ts";

const LEASE = "controller-leader-election";
let server: ApiServer;
let client: KubeClient;

beforeEach(async () => {
  server = await startApiServer({ plain: true });
  const connection = await parseKubeConfig(server.kubeconfig(), { directory: "/", source: "test" });
  client = createKubeClient(connection, { userAgent: "test" });
});
afterEach(async () => {
  await client[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

const spec = () => server.get("Lease", LEASE, "default")?.["spec"] as Record<string, unknown>;

function candidate(
  identity: string,
  lead: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
  monotonicNow?: () => number,
): Promise<void> {
  return runAsLeader(
    { client, logger: silentLogger, random: () => 0, ...(monotonicNow && { monotonicNow }) },
    {
      namespace: "default",
      name: LEASE,
      identity,
      leaseDurationMs: 60_000,
      renewDeadlineMs: 30_000,
      retryPeriodMs: 5,
    },
    lead,
    { signal },
  );
}

const until = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));

async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

test("one of two candidates leads, and the other follows at once when it stops", {
  timeout: 20_000,
}, async () => {
  const stopA = new AbortController();
  const stopB = new AbortController();
  const leaders: string[] = [];
  const ledA = Promise.withResolvers<void>();
  const a = candidate(
    "a",
    async (signal) => {
      leaders.push("a");
      ledA.resolve();
      await until(signal);
      leaders.push("a ended");
    },
    stopA.signal,
  );
  await ledA.promise;
  const ledB = Promise.withResolvers<void>();
  const b = candidate(
    "b",
    async (signal) => {
      leaders.push("b");
      ledB.resolve();
      await until(signal);
    },
    stopB.signal,
  );
  await eventually(() => server.requests.filter((request) => request.verb === "get").length > 5);
  assert.deepEqual(leaders, ["a"]);
  assert.equal(spec()["holderIdentity"], "a");
  stopA.abort();
  await a;
  await ledB.promise;
  assert.deepEqual(leaders, ["a", "a ended", "b"]);
  assert.equal(spec()["leaseTransitions"], 1);
  assert.match(String(spec()["renewTime"]), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  stopB.abort();
  await b;
  assert.equal(spec()["holderIdentity"], "");
});

test("a leader that cannot renew loses its signal and fails", { timeout: 20_000 }, async () => {
  const stop = new AbortController();
  const led = Promise.withResolvers<void>();
  let laterMs = 0;
  let ended = false;
  const running = candidate(
    "a",
    async (signal) => {
      led.resolve();
      await until(signal);
      ended = true;
    },
    stop.signal,
    () => performance.now() + laterMs,
  );
  await led.promise;
  using _away = server.faults.inject({ path: /leases/ }, { status: 503 });
  const before = server.requests.length;
  await eventually(() => server.requests.length > before + 3);
  assert.equal(ended, false, "some failures are no loss");
  laterMs += 30_000;
  await assert.rejects(running, { code: "KUBE_LEADERSHIP_LOST" });
  assert.equal(ended, true);
});

test("a leader whose Lease another one took gives up and leaves it alone", { timeout: 20_000 }, async () => {
  const led = Promise.withResolvers<void>();
  const running = candidate(
    "a",
    async (signal) => {
      led.resolve();
      await until(signal);
    },
    new AbortController().signal,
  );
  await led.promise;
  await eventually(() => spec() !== undefined);
  server.seed([
    {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { name: LEASE, namespace: "default" },
      spec: { holderIdentity: "thief", leaseDurationSeconds: 60 },
    },
  ]);
  await assert.rejects(running, { code: "KUBE_LEADERSHIP_LOST" });
  assert.equal(spec()["holderIdentity"], "thief");
});

test("the Lease of a dead leader is taken over when it has not changed for its duration", {
  timeout: 20_000,
}, async () => {
  let nowMs = Date.UTC(2026, 0, 1);
  server.seed([
    {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { name: LEASE, namespace: "default" },
      spec: {
        holderIdentity: "dead",
        leaseDurationSeconds: 15,
        leaseTransitions: 4,
        renewTime: "2001-01-01T00:00:00.000000Z",
      },
    },
  ]);
  const stop = new AbortController();
  let led = false;
  const running = candidate(
    "a",
    async (signal) => {
      led = true;
      await until(signal);
    },
    stop.signal,
    () => nowMs,
  );
  await eventually(() => server.requests.length >= 3);
  assert.equal(led, false, "an old renewTime alone proves nothing: clocks differ");
  nowMs += 15_001;
  await eventually(() => led);
  assert.equal(spec()["leaseTransitions"], 5);
  stop.abort();
  await running;
});

test("what the leader's work throws passes through, and the Lease is released", {
  timeout: 20_000,
}, async () => {
  await assert.rejects(
    candidate(
      "a",
      async () => {
        throw new Error("broken");
      },
      new AbortController().signal,
    ),
    /broken/,
  );
  assert.equal(spec()["holderIdentity"], "");
});

test("a candidate that is stopped before it leads ends with the signal's reason", {
  timeout: 20_000,
}, async () => {
  const stop = new AbortController();
  using _away = server.faults.inject({ path: /leases/ }, { status: 503 });
  const running = candidate("a", async () => assert.fail("must not lead"), stop.signal);
  await eventually(() => server.requests.length > 2);
  stop.abort(new Error("stopped"));
  await assert.rejects(running, /stopped/);
});

test("the heartbeat creates its Lease, renews it, and survives failures", { timeout: 20_000 }, async () => {
  const stop = new AbortController();
  let nowMs = Date.UTC(2026, 7, 21, 10);
  server.faults.inject({ path: /leases/, times: 2 }, { status: 500 });
  const beating = beat(
    { client, logger: silentLogger, now: () => nowMs },
    {
      namespace: "default",
      name: "gardener-extension-heartbeat",
      holder: "gardener-extension-registry-spegel",
      intervalMs: 1,
    },
    { signal: stop.signal },
  );
  const lease = () =>
    server.get("Lease", "gardener-extension-heartbeat", "default")?.["spec"] as
      | Record<string, unknown>
      | undefined;
  await eventually(() => lease() !== undefined);
  assert.deepEqual(lease(), {
    holderIdentity: "gardener-extension-registry-spegel",
    leaseDurationSeconds: 1,
    renewTime: "2026-08-21T10:00:00.000000Z",
  });
  nowMs += 30_001;
  await eventually(() => lease()?.["renewTime"] === "2026-08-21T10:00:30.001000Z");
  stop.abort();
  await beating;
});

test("times have the forms of meta/v1, cut and not rounded", () => {
  const timeMs = Date.UTC(2026, 7, 21, 10, 0, 0, 999);
  assert.equal(formatMicroTime(timeMs), "2026-08-21T10:00:00.999000Z");
  assert.equal(formatTime(timeMs), "2026-08-21T10:00:00Z");
});
