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
  readonly order: number;
  /** Undefined when it was cancelled. */
  action: (() => void) | undefined;
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

const LEAST_COMPACTED = 1_000;

const realSetImmediate = setImmediate;
const realTimers = { setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate };

/**
 * Replaces the timers, `performance.now`, `Date.now`, `AbortSignal.timeout` and `Math.random` of the whole process.
 * With the same seed the same things happen in the same order.
 */
export function installVirtualClock(random: () => number): VirtualClock {
  // A heap by time; the times stand apart so that comparing them does not touch the tasks.
  const tasks: Task[] = [];
  const times: number[] = [];
  let nowMs = 0;
  let order = 0;
  let fired = 0;
  let cancelled = 0;

  const isBefore = (atMs: number, task: Task, at: number): boolean =>
    atMs < (times[at] as number) || (atMs === times[at] && task.order < (tasks[at] as Task).order);

  function put(atMs: number, task: Task, at: number): void {
    times[at] = atMs;
    tasks[at] = task;
  }

  function siftUp(atMs: number, task: Task, from: number): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(atMs, task, parent)) break;
      put(times[parent] as number, tasks[parent] as Task, at);
      at = parent;
    }
    put(atMs, task, at);
  }

  function siftDown(atMs: number, task: Task, from: number): void {
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= tasks.length) break;
      if (child + 1 < tasks.length && isBefore(times[child + 1] as number, tasks[child + 1] as Task, child))
        child++;
      if (isBefore(atMs, task, child)) break;
      put(times[child] as number, tasks[child] as Task, at);
      at = child;
    }
    put(atMs, task, at);
  }

  function pop(): Task {
    const first = tasks[0] as Task;
    const atMs = times.pop() as number;
    const last = tasks.pop() as Task;
    if (tasks.length > 0) siftDown(atMs, last, 0);
    return first;
  }

  /** Most timers are cancelled long before their time: they go when they are the greater part. */
  function compact(): void {
    let kept = 0;
    for (let at = 0; at < tasks.length; at++) {
      if ((tasks[at] as Task).action === undefined) continue;
      put(times[at] as number, tasks[at] as Task, kept++);
    }
    tasks.length = kept;
    times.length = kept;
    cancelled = 0;
    for (let at = (kept >> 1) - 1; at >= 0; at--) siftDown(times[at] as number, tasks[at] as Task, at);
  }

  function schedule(delayMs: number, action: () => void): Task {
    const task: Task = { order: order++, action };
    siftUp(nowMs + Math.max(delayMs || 0, 0), task, tasks.length);
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
    if (!(handle instanceof Handle) || handle.task?.action === undefined) return;
    handle.task.action = undefined;
    if (++cancelled > LEAST_COMPACTED && cancelled > tasks.length / 2) compact();
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
        const nextMs = times[0];
        if (nextMs === undefined || nextMs > untilMs) break;
        nowMs = nextMs;
        while (times[0] === nowMs) {
          const task = pop();
          const { action } = task;
          if (action === undefined) {
            cancelled--;
            continue;
          }
          task.action = undefined;
          fired++;
          action();
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
