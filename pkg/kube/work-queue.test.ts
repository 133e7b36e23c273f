// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import fc from "fast-check";
import { silentLogger } from "#log";
import { createWorkQueue, type WorkOutcome, type WorkQueueOptions } from "./index.ts";

type Handle = (key: string, options: { readonly signal: AbortSignal }) => Promise<WorkOutcome>;

const queueOf = (handle: Handle, options: WorkQueueOptions = {}) =>
  createWorkQueue({ handle, logger: silentLogger, random: () => 1 }, options);

test("a key that waits is not queued twice", async () => {
  const runs: string[] = [];
  await using queue = queueOf(async (key) => void runs.push(key), { workers: 1 });
  for (const key of ["running", "a", "b", "a", "b", "c"]) queue.add(key);
  await queue.idle();
  assert.deepEqual(runs, ["running", "a", "b", "c"]);
});

test("a key added while it runs, runs once more afterwards and never twice at a time", async () => {
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let runs = 0;
  let concurrent = 0;
  await using queue = queueOf(async () => {
    assert.equal(++concurrent, 1);
    await gates[runs++]?.promise;
    concurrent--;
    return undefined;
  });
  queue.add("a");
  queue.add("a");
  queue.add("a");
  gates[0]?.resolve();
  gates[1]?.resolve();
  await queue.idle();
  assert.equal(runs, 2);
});

test("no more keys run at a time than there are workers, and every key runs", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.nat(5), { maxLength: 20 }),
      async (scheduler, workers, keys) => {
        const running = new Set<string>();
        const handled = new Set<string>();
        await using queue = queueOf(
          async (key) => {
            assert.ok(!running.has(key));
            running.add(key);
            assert.ok(running.size <= workers);
            await scheduler.schedule(Promise.resolve());
            running.delete(key);
            handled.add(key);
            return undefined;
          },
          { workers },
        );
        for (const key of keys) queue.add(String(key));
        await scheduler.waitFor(queue.idle());
        assert.deepEqual([...handled].sort(), [...new Set(keys.map(String))].sort());
        assert.equal(queue.size, 0);
      },
    ),
    { numRuns: 50 },
  );
});

test("failures of a key are retried with growing delays, which a success resets", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    let runs = 0;
    let failing = true;
    await using queue = queueOf(
      async () => {
        runs++;
        if (failing) throw new Error("not yet");
        return undefined;
      },
      { backoff: { initialMs: 1000, maxMs: 3000 } },
    );
    const after = async (ms: number, expected: number): Promise<void> => {
      mock.timers.tick(ms);
      await queue.idle();
      assert.equal(runs, expected);
    };
    queue.add("a");
    await after(0, 1);
    await after(999, 1);
    await after(1, 2);
    await after(1999, 2);
    await after(1, 3);
    await after(3000, 4); // 4 s, capped
    failing = false;
    await after(3000, 5);
    failing = true;
    queue.add("a");
    await after(0, 6);
    await after(1000, 7);
  } finally {
    mock.timers.reset();
  }
});

test("adding a key runs it at once although it waits for its time", async () => {
  let runs = 0;
  await using queue = queueOf(async () => {
    runs++;
    return undefined;
  });
  queue.addAfter("a", 3_600_000);
  queue.add("a");
  await queue.idle();
  assert.equal(runs, 1);
});

test("an outcome can ask for another run, and the earlier of two times wins", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    let runs = 0;
    await using queue = queueOf(async () => (++runs === 1 ? { requeueAfterMs: 50 } : undefined));
    queue.add("a");
    await queue.idle();
    queue.addAfter("a", 500);
    mock.timers.tick(50);
    await queue.idle();
    assert.equal(runs, 2);
    mock.timers.tick(1000);
    await queue.idle();
    assert.equal(runs, 2);
  } finally {
    mock.timers.reset();
  }
});

test("more keys than the limit are refused", async () => {
  const gate = Promise.withResolvers<void>();
  const runs: string[] = [];
  await using queue = queueOf(
    async (key) => {
      runs.push(key);
      await gate.promise;
      return undefined;
    },
    { workers: 1, maxKeys: 2 },
  );
  for (const key of ["running", "a", "b", "c"]) queue.add(key);
  gate.resolve();
  await queue.idle();
  assert.deepEqual(runs, ["running", "a", "b"]);
});

test("disposal lets running work finish, drops the waiting and takes no more", async () => {
  const gate = Promise.withResolvers<void>();
  const finished: string[] = [];
  const queue = queueOf(
    async (key) => {
      await gate.promise;
      finished.push(key);
      throw new Error("a retry that must not happen");
    },
    { workers: 1 },
  );
  queue.add("running");
  queue.add("waiting");
  const disposed = queue[Symbol.asyncDispose]();
  queue.add("late");
  gate.resolve();
  await disposed;
  assert.deepEqual(finished, ["running"]);
});

test("work that outlives the drain time, and a run beyond its own, are aborted", async () => {
  const untilAborted: Handle = (_key, { signal }) =>
    new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
  const draining = queueOf(untilAborted, { drainMs: 1 });
  draining.add("a");
  await draining[Symbol.asyncDispose]();
  await using limited = queueOf(untilAborted, { timeoutMs: 1 });
  limited.add("a");
  await limited.idle();
});
