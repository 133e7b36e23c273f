// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { type ApiServer, type ApiServerOptions, startApiServer } from "#kit/api-server";
import { silentLogger } from "#log";
import {
  createInformer,
  createKubeClient,
  type Informer,
  type InformerEvent,
  type InformerOptions,
  type KubeClient,
  type KubeObject,
  NODES,
  parseKubeConfig,
} from "./index.ts";

const signal = AbortSignal.timeout(60_000);
let server: ApiServer;
let client: KubeClient;

async function start(options: ApiServerOptions = {}): Promise<void> {
  server = await startApiServer({ plain: true, ...options });
  const connection = await parseKubeConfig(server.kubeconfig(), { directory: "/", source: "test" });
  client = createKubeClient(connection, { userAgent: "test" });
}
beforeEach(async () => await start({ bookmarkIntervalMs: 5 }));
afterEach(async () => {
  await client[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

interface Node extends KubeObject {
  readonly spec?: { readonly zone?: string };
}
type Kept = { readonly name: string; readonly zone: string };

function node(
  name: string,
  zone = "a",
): { apiVersion: string; kind: string; metadata: { name: string }; spec: object } {
  return { apiVersion: "v1", kind: "Node", metadata: { name }, spec: { zone } };
}

function watchNodes(
  more: Partial<InformerOptions<Node, Kept>> = {},
  deps: { readonly now?: () => number } = {},
): {
  informer: Informer<Kept>;
  events: EventLog;
} {
  const informer = createInformer<Node, Kept>(
    { client, logger: silentLogger, random: () => 0, ...deps },
    {
      resource: NODES,
      trim: (object) => ({ name: object.metadata.name, zone: object.spec?.zone ?? "" }),
      backoff: { initialMs: 1, maxMs: 5 },
      ...more,
    },
  );
  const events = eventLog();
  informer.subscribe(events.push);
  return { informer, events };
}

interface EventLog {
  push(event: InformerEvent<Kept>): void;
  /** Waits for so many events in all and returns them as text. */
  until(count: number): Promise<string[]>;
}

function eventLog(): EventLog {
  const seen: string[] = [];
  let wake = (): void => {};
  return {
    push(event) {
      const previous = event.type === "modified" ? `${event.previous.zone}>` : "";
      seen.push(`${event.type} ${event.key} ${previous}${event.object.zone}`);
      wake();
    },
    async until(count) {
      while (seen.length < count) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return seen.slice();
    },
  };
}

const watches = (): number => server.requests.filter((request) => request.verb === "watch").length;
const lists = (): number => server.requests.filter((request) => request.verb === "list").length;

/** Polls server state that nothing reports. */
async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) {
    signal.throwIfAborted();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("the copy holds what was listed and follows every change", async () => {
  server.seed([node("one"), node("two")]);
  const { informer, events } = watchNodes({ pageSize: 1 });
  await using _ = informer;
  await informer.synced({ signal });
  assert.deepEqual((await events.until(2)).sort(), ["added one a", "added two a"]);
  server.seed([node("three"), node("one", "b")]);
  server.remove("Node", "two");
  assert.deepEqual((await events.until(5)).slice(2), ["added three a", "modified one a>b", "deleted two a"]);
  assert.deepEqual([...informer.values()].map(({ name }) => name).sort(), ["one", "three"]);
  assert.deepEqual(informer.get("one"), { name: "one", zone: "b" });
  assert.equal(informer.get("two"), undefined);
  assert.equal(informer.size, 2);
  assert.equal(lists(), 2); // two pages
});

test("a late subscriber first hears of everything there is", async () => {
  server.seed([node("one")]);
  const { informer } = watchNodes();
  await using _ = informer;
  await informer.synced({ signal });
  const late = eventLog();
  const subscription = informer.subscribe(late.push);
  assert.deepEqual(await late.until(1), ["added one a"]);
  subscription[Symbol.dispose]();
  server.seed([node("two")]);
  await eventually(() => informer.size === 2);
  assert.deepEqual(await late.until(1), ["added one a"]);
});

test("a watch that the server ends continues from the last version without a new list", async () => {
  server.seed([node("one")]);
  const { informer, events } = watchNodes();
  await using _ = informer;
  await events.until(1);
  for (let round = 0; round < 3; round++) {
    await eventually(() => server.openWatches === 1);
    server.faults.dropWatches();
    await eventually(() => server.openWatches === 0);
    server.seed([node(`missed-${round}`)]);
  }
  assert.deepEqual((await events.until(4)).slice(1), [
    "added missed-0 a",
    "added missed-1 a",
    "added missed-2 a",
  ]);
  assert.equal(lists(), 1);
});

test("an expired version leads to a new list, and the differences become events", async () => {
  server.seed([node("one"), node("two"), node("same")]);
  const { informer, events } = watchNodes();
  await using _ = informer;
  await events.until(3);
  await eventually(() => server.openWatches === 1);
  const down = server.faults.inject({ watch: true }, { status: 503 });
  server.faults.dropWatches();
  server.seed([node("one", "b"), node("new")]);
  server.remove("Node", "two");
  server.faults.compact();
  down[Symbol.dispose]();
  const later = (await events.until(6)).slice(3);
  assert.deepEqual(later.sort(), ["added new a", "deleted two a", "modified one a>b"]);
  assert.equal(lists(), 2);
});

test("410 as an event within the stream leads to a new list too", async () => {
  const { informer, events } = watchNodes();
  await using _ = informer;
  await informer.synced({ signal });
  await eventually(() => server.openWatches === 1);
  const status = { kind: "Status", code: 410, reason: "Expired", message: "too old resource version" };
  server.faults.writeToWatches(JSON.stringify({ type: "ERROR", object: status }));
  await eventually(() => lists() === 2);
  server.seed([node("after")]);
  assert.deepEqual(await events.until(1), ["added after a"]);
});

test("a watch without a byte is given up and resumed", async () => {
  await client[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  await start({ bookmarkIntervalMs: 60_000 });
  server.seed([node("one")]);
  const { informer, events } = watchNodes({ idleTimeoutMs: 40 });
  await using _ = informer;
  await events.until(1);
  await eventually(() => server.openWatches === 1);
  server.faults.silenceWatches();
  server.seed([node("missed")]);
  assert.deepEqual((await events.until(2)).slice(1), ["added missed a"]);
  assert.equal(lists(), 1);
});

test("bookmarks keep a quiet watch alive and its version recent", async () => {
  const { informer, events } = watchNodes({ idleTimeoutMs: 2000 });
  await using _ = informer;
  await informer.synced({ signal });
  await eventually(() => server.openWatches === 1);
  // Other resources move the version on; a bookmark tells, so compaction does not hurt.
  server.seed([{ apiVersion: "v1", kind: "Secret", metadata: { name: "s", namespace: "default" } }]);
  const heard = informer.lastHeardMs;
  await eventually(() => informer.lastHeardMs > heard + 10);
  server.faults.compact();
  server.faults.dropWatches();
  await eventually(() => watches() === 2 && server.openWatches === 1);
  server.seed([node("one")]);
  await events.until(1);
  assert.equal(lists(), 1);
});

test("nonsense on the stream is survived with a new list", async () => {
  const { informer, events } = watchNodes();
  await using _ = informer;
  await informer.synced({ signal });
  const nonsense = [
    "{",
    "null",
    "7",
    '{"type":"ADDED"}',
    '{"type":"ADDED","object":{"metadata":{}}}',
    '{"type":"LOST","object":{"metadata":{}}}',
  ];
  for (const [index, line] of nonsense.entries()) {
    await eventually(() => server.openWatches === 1);
    server.faults.writeToWatches(line);
    await eventually(() => lists() === index + 2);
  }
  server.seed([node("after")]);
  assert.deepEqual(await events.until(1), ["added after a"]);
});

test("an API server that is away at the start is waited for", async () => {
  server.seed([node("one")]);
  server.faults.inject({ times: 3 }, "reset");
  server.faults.inject({ times: 2 }, { status: 403 });
  const { informer } = watchNodes();
  await using _ = informer;
  await informer.synced({ signal });
  assert.equal(informer.size, 1);
});

test("waiting for the first list ends with the caller's signal", async () => {
  using _hang = server.faults.inject({}, "hang");
  const { informer } = watchNodes();
  await using _ = informer;
  const abort = new AbortController();
  const waiting = informer.synced({ signal: abort.signal });
  abort.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  assert.equal(informer.hasSynced, false);
});

test("a full list is repeated after its time even when nothing failed", async () => {
  server.seed([node("one")]);
  const { informer } = watchNodes({ relistMs: -1 });
  await using _ = informer;
  for (let count = 2; count < 4; count++) {
    await eventually(() => server.openWatches === 1);
    server.faults.dropWatches();
    await eventually(() => lists() >= count);
  }
});

test("objects that trim drops are neither kept nor reported", async () => {
  server.seed([node("kept"), node("dropped", "x")]);
  const { informer, events } = watchNodes({
    trim: (object) =>
      object.spec?.zone === "x" ? undefined : { name: object.metadata.name, zone: object.spec?.zone ?? "" },
  });
  await using _ = informer;
  await events.until(1);
  server.seed([node("kept", "x"), node("dropped", "a")]);
  assert.deepEqual(await events.until(3), ["added kept a", "deleted kept a", "added dropped a"]);
});

test("a handler that throws does not stop the others", async () => {
  const { informer, events } = watchNodes();
  await using _ = informer;
  informer.subscribe(() => {
    throw new Error("mine");
  });
  await informer.synced({ signal });
  server.seed([node("one"), node("two")]);
  assert.equal((await events.until(2)).length, 2);
});

test("what cuts every watch after a while costs neither longer waits nor new lists", async () => {
  const watches = () => server.requests.filter(({ query }) => query.includes("watch=true")).length;
  const lists = () => server.requests.length - watches();
  server.faults.inject({ watch: true, times: 12 }, "reset");
  let nowMs = 0;
  const { informer } = watchNodes(
    { backoff: { initialMs: 1, maxMs: 600_000 } },
    { now: () => (nowMs += 11_000) },
  );
  await using _ = informer;
  await eventually(() => server.openWatches === 1);
  assert.ok(watches() >= 12);
  assert.equal(lists(), 1);
});

test("disposal closes the watch", async () => {
  const { informer } = watchNodes();
  await informer.synced({ signal });
  await eventually(() => server.openWatches === 1);
  await informer[Symbol.asyncDispose]();
  await eventually(() => server.openWatches === 0);
});
