// SPDX-License-Identifier: Apache-2.0
import { createBackoff } from "#async";
import type { Logger } from "#log";

/** What to do with a key after it was handled; nothing: wait for the next `add`. */
export type WorkOutcome = { readonly requeueAfterMs: number } | undefined;

export interface WorkQueueOptions {
  /** Keys handled at a time; default 5. */
  readonly workers?: number;
  /** After a failure of a key, growing with each further one; default 1 s to 5 min. */
  readonly backoff?: { readonly initialMs: number; readonly maxMs: number };
  /** The signal of one run aborts after this time; default 3 min. */
  readonly timeoutMs?: number;
  /** On disposal, running work has this long before its signal aborts; default 30 s. */
  readonly drainMs?: number;
  /** More waiting keys than this are refused, with an error in the log; default 100,000. */
  readonly maxKeys?: number;
}

export interface WorkQueueDeps {
  /** Brings one key to its wanted state. A rejection is logged and tried again after a back-off. */
  readonly handle: (key: string, options: { readonly signal: AbortSignal }) => Promise<WorkOutcome>;
  readonly logger: Logger;
  readonly random?: () => number;
}

/**
 * Keys to be handled: each waits at most once, runs at most once at a time, and runs again when it was added while
 * it ran. Disposal stops new work, waits for running work, then aborts it.
 */
export interface WorkQueue extends AsyncDisposable {
  /** As soon as a worker is free. */
  add(key: string): void;
  /** Not before `delayMs`; an earlier time that is already set stays. */
  addAfter(key: string, delayMs: number): void;
  /** Keys that wait for a worker or are running. */
  readonly size: number;
  /** Resolves when nothing waits for a worker or runs; keys that wait for their time do not count. */
  idle(): Promise<void>;
}

interface Delay {
  readonly timer: NodeJS.Timeout;
  readonly dueMs: number;
}

export function createWorkQueue(deps: WorkQueueDeps, options: WorkQueueOptions = {}): WorkQueue {
  const { handle, logger } = deps;
  const workers = options.workers ?? 5;
  const { initialMs, maxMs } = options.backoff ?? { initialMs: 1000, maxMs: 300_000 };
  const waiting = new Set<string>();
  const running = new Map<string, Promise<void>>();
  const addedWhileRunning = new Set<string>();
  const delays = new Map<string, Delay>();
  const backoffs = new Map<string, ReturnType<typeof createBackoff>>();
  const stop = new AbortController();
  let closed = false;
  let idleWaiters: (() => void)[] = [];

  function add(key: string): void {
    if (closed) return;
    clearDelay(key);
    if (running.has(key)) addedWhileRunning.add(key);
    else if (waiting.size < (options.maxKeys ?? 100_000)) waiting.add(key);
    else logger.error("the work queue is full, a key was dropped", { key });
    startNext();
  }

  function addAfter(key: string, delayMs: number): void {
    if (closed) return;
    const dueMs = performance.now() + delayMs;
    const set = delays.get(key);
    if (set !== undefined && set.dueMs <= dueMs) return;
    clearDelay(key);
    const timer = setTimeout(() => add(key), delayMs);
    timer.unref();
    delays.set(key, { timer, dueMs });
  }

  function clearDelay(key: string): void {
    clearTimeout(delays.get(key)?.timer);
    delays.delete(key);
  }

  function startNext(): void {
    while (running.size < workers && !closed) {
      const [key] = waiting;
      if (key === undefined) break;
      waiting.delete(key);
      running.set(key, run(key));
    }
    if (waiting.size === 0 && running.size === 0) {
      for (const resolve of idleWaiters.splice(0)) resolve();
    }
  }

  async function run(key: string): Promise<void> {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(options.timeoutMs ?? 180_000)]);
    try {
      const outcome = await handle(key, { signal });
      backoffs.delete(key);
      if (outcome !== undefined) addAfter(key, outcome.requeueAfterMs);
    } catch (error) {
      if (!stop.signal.aborted) retry(key, error);
    }
    running.delete(key);
    if (addedWhileRunning.delete(key)) add(key);
    else startNext();
  }

  function retry(key: string, error: unknown): void {
    let backoff = backoffs.get(key);
    if (backoff === undefined) {
      backoff = createBackoff({ initialMs, maxMs, ...(deps.random && { random: deps.random }) });
      backoffs.set(key, backoff);
    }
    const delayMs = Math.round(backoff.next());
    logger.warn("handling failed, will try again", { key, delayMs, err: error });
    addAfter(key, delayMs);
  }

  return {
    add,
    addAfter,
    get size() {
      return waiting.size + running.size;
    },
    async idle() {
      if (waiting.size === 0 && running.size === 0) return;
      await new Promise<void>((resolve) => idleWaiters.push(resolve));
    },
    async [Symbol.asyncDispose]() {
      closed = true;
      waiting.clear();
      for (const key of [...delays.keys()]) clearDelay(key);
      const deadline = setTimeout(() => stop.abort(), options.drainMs ?? 30_000);
      await Promise.all(running.values());
      clearTimeout(deadline);
      stop.abort();
    },
  };
}
