// SPDX-License-Identifier: Apache-2.0
import { watch } from "node:fs";

export interface DirectoryChangesOptions {
  readonly signal: AbortSignal;
  /** Yields at least this often: notifications may be lost, or not exist on the file system. */
  readonly pollMs: number;
}

/**
 * Yields once at the start, and whenever something in a folder may have changed since: entries made, removed, renamed (the `..data` link of a
 * projected volume) or written. Changes that come while the consumer works become one. Ends when the signal aborts.
 *
 * It never throws: where the folder cannot be watched, or is replaced, polling remains.
 */
export async function* directoryChanges(
  directory: string,
  options: DirectoryChangesOptions,
): AsyncGenerator<void, void, undefined> {
  const { signal, pollMs } = options;
  let isPending = true;
  let wake = (): void => {};
  const notify = (): void => {
    isPending = true;
    wake();
  };
  const watcher = tryWatch(directory, notify);
  signal.addEventListener("abort", notify, { once: true });
  try {
    while (!signal.aborted) {
      if (!isPending) {
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = resolve;
        const timer = setTimeout(resolve, pollMs);
        timer.unref();
        await promise;
        clearTimeout(timer);
      }
      isPending = false;
      if (!signal.aborted) yield;
    }
  } finally {
    signal.removeEventListener("abort", notify);
    watcher?.close();
  }
}

function tryWatch(directory: string, notify: () => void): { close(): void } | undefined {
  try {
    const watcher = watch(directory, { persistent: false }, notify);
    watcher.on("error", () => watcher.close());
    return watcher;
  } catch {
    return undefined;
  }
}
