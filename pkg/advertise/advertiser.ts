// SPDX-License-Identifier: Apache-2.0
import { createBackoff, createTaskGroup, sleep, type TaskGroup } from "#async";
import type { Logger } from "#log";
import type { Router } from "#routing";
import type { ContentEntry, ContentStore } from "#store";
import { createAnnouncedKeys } from "./announced-keys.ts";
import type { AdvertiseMetrics, Clock, Filters } from "./ports.ts";
import { reconcile } from "./reconcile.ts";
import { createContentFilter } from "./select-keys.ts";

const systemClock: Clock = { now: () => performance.now(), sleep };
// More hints than this at once are left to the reconciliation that follows anyway.
const MAX_PENDING = 4096;
// A reconciliation uses at most this part of the time, however many hints there are.
const DUTY = 0.2;
const MAX_PAUSE_MS = 5000;

export interface AdvertiserOptions {
  /** How often everything is listed without a hint; default 60 s. */
  readonly intervalMs?: number;
  /** How long hints are gathered before everything is listed; default 50 ms. */
  readonly debounceMs?: number;
  /** Waits after failures, growing; default 0.5 s to 30 s. */
  readonly retry?: { readonly initialMs: number; readonly maxMs: number };
}

/** Keeps the swarm told what this node holds. */
export interface Advertiser {
  /** Works until the signal aborts, then returns. Failures are logged and retried, never thrown. */
  run(options: { readonly signal: AbortSignal }): Promise<void>;
  /** True once everything was listed and announced. */
  synced(): boolean;
}

export function createAdvertiser(
  deps: {
    readonly store: ContentStore;
    readonly router: Router;
    readonly filters: Filters;
    readonly metrics: AdvertiseMetrics;
    readonly log: Logger;
    readonly clock?: Clock;
  },
  options: AdvertiserOptions = {},
): Advertiser {
  const { store, router, filters, metrics, log, clock = systemClock } = deps;
  const { intervalMs = 60_000, debounceMs = 20, retry = { initialMs: 500, maxMs: 30_000 } } = options;
  const announced = createAnnouncedKeys({ router, onSize: (count) => metrics.keys(count) });
  const admits = createContentFilter(filters);
  const pending = new Set<string>();
  let hinted = Promise.withResolvers<void>();
  let announcing = false;
  let isSynced = false;

  async function followHints(tasks: TaskGroup): Promise<void> {
    for await (const change of store.watch({ signal: tasks.signal })) {
      if (change.kind === "added") announceSoon(change.content, tasks);
      hinted.resolve();
    }
  }

  function announceSoon(content: ContentEntry, tasks: TaskGroup): void {
    if (admits(content) === undefined || pending.size >= MAX_PENDING) return;
    pending.add(content.digest);
    if (!announcing) tasks.run("announce content", announcePending);
  }

  // Content that arrives while keys are being announced goes out with the next batch.
  async function announcePending(signal: AbortSignal): Promise<void> {
    announcing = true;
    try {
      while (pending.size > 0 && !signal.aborted) {
        const keys = [...pending];
        pending.clear();
        await announced.advertise(keys, { signal });
      }
    } catch (error) {
      if (!signal.aborted) log.debug("new content is left to the reconciliation", { err: error });
    } finally {
      announcing = false;
    }
  }

  async function reconcileRepeatedly(signal: AbortSignal): Promise<void> {
    const backoff = createBackoff(retry);
    for (;;) {
      hinted = Promise.withResolvers<void>();
      const startedMs = clock.now();
      let pauseMs: number;
      try {
        const result = await reconcile({ store, filters, announced }, { signal });
        const durationMs = clock.now() - startedMs;
        metrics.reconciled(result, durationMs);
        if (!isSynced) log.info("advertised all content", { keys: announced.size, durationMs });
        else if (result.added + result.removed > 0) {
          log.debug("advertised changes", {
            added: result.added,
            removed: result.removed,
            keys: announced.size,
          });
        }
        isSynced = true;
        backoff.reset();
        pauseMs = Math.min(durationMs / DUTY - durationMs, MAX_PAUSE_MS);
      } catch (error) {
        signal.throwIfAborted();
        metrics.failed();
        log.warn("could not advertise content", { err: error });
        await clock.sleep(backoff.next(), { signal });
        continue;
      }
      await clock.sleep(pauseMs, { signal });
      await hintOrTimeout(Math.max(intervalMs - pauseMs, 0), signal);
      await clock.sleep(debounceMs, { signal });
    }
  }

  async function hintOrTimeout(timeoutMs: number, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const timer = clock.sleep(timeoutMs, { signal: AbortSignal.any([signal, stop.signal]) });
    timer.catch(() => {}); // stopped below
    await Promise.race([hinted.promise, timer]);
    stop.abort();
    signal.throwIfAborted();
  }

  return {
    synced: () => isSynced,
    async run({ signal }) {
      await using tasks = createTaskGroup({ signal });
      tasks.run("follow content", (stop) => followForEver(tasks, stop));
      tasks.run("advertise content", reconcileRepeatedly);
      await tasks.finished;
    },
  };

  // A store's watch ends only with the signal; one that fails nevertheless is followed again.
  async function followForEver(tasks: TaskGroup, signal: AbortSignal): Promise<void> {
    const backoff = createBackoff(retry);
    while (!signal.aborted) {
      try {
        await followHints(tasks);
      } catch (error) {
        signal.throwIfAborted();
        log.warn("content is no longer followed", { err: error });
      }
      hinted.resolve();
      if (!signal.aborted) await clock.sleep(backoff.next(), { signal });
    }
  }
}
