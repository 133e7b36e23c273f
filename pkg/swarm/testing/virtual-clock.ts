// SPDX-License-Identifier: Apache-2.0
import { syncBuiltinESMExports } from "node:module";
import timers from "node:timers/promises";

/** Time that passes only when it is told to: every timer of this process hangs on it until it is disposed. */
export interface VirtualClock extends Disposable {
  now(): number;
  /** Runs `action` at a later time. */
  after(delayMs: number, action: () => void): void;
  /** Lets time pass, timer by timer, each with everything that follows from it. */
  advance(ms: number): Promise<void>;
  readonly fired: number;
}

interface Task {
  readonly atMs: number;
  readonly order: number;
  readonly action: () => void;
  isCancelled: boolean;
}

/** What `setTimeout` gives: as much of it as the code under test uses. */
class Handle {
  task: Task | undefined;
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
}

const realSetImmediate = setImmediate;
const realTimers = { setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate };

/**
 * Replaces the timers, `performance.now`, `Date.now`, `AbortSignal.timeout` and `Math.random` of the whole process.
 * With the same seed the same things happen in the same order.
 */
export function installVirtualClock(random: () => number): VirtualClock {
  const heap: Task[] = [];
  let nowMs = 0;
  let order = 0;
  let fired = 0;

  const isBefore = (a: Task, b: Task): boolean => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

  function push(task: Task): void {
    let at = heap.length;
    heap.push(task);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(task, heap[parent] as Task)) break;
      heap[at] = heap[parent] as Task;
      at = parent;
    }
    heap[at] = task;
  }

  function pop(): Task {
    const first = heap[0] as Task;
    const last = heap.pop() as Task;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Task, heap[child] as Task)) child++;
      if (!isBefore(heap[child] as Task, last)) break;
      heap[at] = heap[child] as Task;
      at = child;
    }
    heap[at] = last;
    return first;
  }

  function schedule(delayMs: number, action: () => void): Task {
    const task = { atMs: nowMs + Math.max(delayMs || 0, 0), order: order++, action, isCancelled: false };
    push(task);
    return task;
  }

  function timeout(action: (...args: unknown[]) => void, delayMs = 0, ...args: unknown[]): Handle {
    const handle = new Handle();
    handle.task = schedule(delayMs, () => action(...args));
    return handle;
  }

  function interval(action: (...args: unknown[]) => void, delayMs = 1, ...args: unknown[]): Handle {
    const handle = new Handle();
    const again = (): void => {
      handle.task = schedule(Math.max(delayMs, 1), again);
      action(...args);
    };
    handle.task = schedule(Math.max(delayMs, 1), again);
    return handle;
  }

  function cancel(handle: unknown): void {
    if (handle instanceof Handle && handle.task !== undefined) handle.task.isCancelled = true;
  }

  function delay(ms: number, value?: unknown, options?: { readonly signal?: AbortSignal }): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const signal = options?.signal;
      if (signal?.aborted === true) return reject(signal.reason as Error);
      const onAbort = (): void => {
        cancel(handle);
        reject(signal?.reason as Error);
      };
      const handle = timeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve(value);
      }, ms);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  const timedOut = new DOMException("timed out", "TimeoutError");
  const saved = {
    promises: { setTimeout: timers.setTimeout, setImmediate: timers.setImmediate },
    performanceNow: performance.now.bind(performance),
    dateNow: Date.now,
    abortTimeout: AbortSignal.timeout,
    random: Math.random,
  };
  Object.assign(globalThis, {
    setTimeout: timeout,
    setInterval: interval,
    setImmediate: (action: () => void, ...args: unknown[]) => timeout(action, 0, ...args),
    clearTimeout: cancel,
    clearInterval: cancel,
    clearImmediate: cancel,
  });
  Object.assign(timers, { setTimeout: delay, setImmediate: (value?: unknown) => delay(0, value) });
  syncBuiltinESMExports();
  performance.now = () => nowMs;
  Date.now = () => nowMs;
  AbortSignal.timeout = (ms) => {
    const controller = new AbortController();
    schedule(ms, () => controller.abort(timedOut));
    return controller.signal;
  };
  Math.random = random;

  return {
    now: () => nowMs,
    after: (delayMs, action) => void schedule(delayMs, action),
    get fired() {
      return fired;
    },
    async advance(ms) {
      const untilMs = nowMs + ms;
      for (;;) {
        // All promises that are settled run before the next timer does.
        await new Promise((resolve) => realSetImmediate(resolve));
        const next = heap[0];
        if (next === undefined || next.atMs > untilMs) break;
        nowMs = next.atMs;
        while (heap[0] !== undefined && heap[0].atMs === nowMs) {
          const task = pop();
          if (task.isCancelled) continue;
          fired++;
          task.action();
        }
      }
      nowMs = untilMs;
    },
    [Symbol.dispose]() {
      Object.assign(globalThis, realTimers);
      Object.assign(timers, saved.promises);
      syncBuiltinESMExports();
      performance.now = saved.performanceNow;
      Date.now = saved.dateNow;
      AbortSignal.timeout = saved.abortTimeout;
      Math.random = saved.random;
    },
  };
}

/** Numbers in [0, 1) that follow from the seed alone (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
