// SPDX-License-Identifier: Apache-2.0
import { isAbort } from "#errors";

/**
 * Background work that ends together: the first failure aborts the siblings, and nothing outlives the group.
 *
 * A task that rejects because the group's signal aborted has stopped cleanly and is not a failure.
 */
export interface TaskGroup extends AsyncDisposable {
  /** Aborts when the group is disposed, a task failed, or the parent signal aborted. */
  readonly signal: AbortSignal;
  /** Starts a task. `name` is used in the error when it fails. */
  run(name: string, task: (signal: AbortSignal) => Promise<void>): void;
  /** Resolves when the group was stopped, rejects with the first failure. */
  readonly finished: Promise<void>;
}

export function createTaskGroup(options: { readonly signal?: AbortSignal } = {}): TaskGroup {
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  const tasks = new Set<Promise<void>>();
  const finished = Promise.withResolvers<void>();
  finished.promise.catch(() => {}); // observed by whoever awaits `finished`; never an unhandled rejection
  if (signal.aborted) void settle();
  else signal.addEventListener("abort", () => void settle(), { once: true });

  async function settle(): Promise<void> {
    await Promise.all(tasks);
    finished.resolve();
  }

  function fail(name: string, error: unknown): void {
    finished.reject(new Error(`${name} failed`, { cause: error }));
    stop.abort();
  }

  return {
    signal,
    finished: finished.promise,
    run(name, task) {
      const running: Promise<void> = task(signal)
        .catch((error: unknown) => {
          if (!(signal.aborted && (isAbort(error) || error === signal.reason))) fail(name, error);
        })
        .finally(() => tasks.delete(running));
      tasks.add(running);
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.all(tasks);
    },
  };
}
