// SPDX-License-Identifier: Apache-2.0
import type { StoreChange } from "./content-store.ts";

/** Hands hints to every watcher. A watcher that does not keep up gets one `changed` in place of what it missed. */
export interface ChangeFeed {
  publish(change: StoreChange): void;
  /** As `ContentStore.watch`: subscribed with the first `next()`, ends quietly when the signal aborts. */
  watch(options: { readonly signal: AbortSignal }): AsyncGenerator<StoreChange, void, undefined>;
}

/** @param options.capacity hints kept for one watcher before they collapse into `changed`; default 1024 */
export function createChangeFeed(options: { readonly capacity?: number } = {}): ChangeFeed {
  const capacity = options.capacity ?? 1024;
  const watchers = new Set<(change: StoreChange) => void>();

  return {
    publish(change) {
      for (const offer of watchers) offer(change);
    },
    async *watch({ signal }) {
      let queue: StoreChange[] = [];
      let wake = Promise.withResolvers<void>();
      const offer = (change: StoreChange): void => {
        if (change.kind === "changed" || queue.length >= capacity) {
          // One `changed` says as much as many, and more than any `added` that does not fit.
          const kept = queue.length >= capacity ? [] : queue.filter((each) => each.kind !== "changed");
          queue = [...kept, { kind: "changed" }];
        } else {
          queue.push(change);
        }
        wake.resolve();
      };
      const onAbort = (): void => wake.resolve();
      watchers.add(offer);
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        while (!signal.aborted) {
          const next = queue.shift();
          if (next !== undefined) {
            yield next;
            continue;
          }
          await wake.promise;
          wake = Promise.withResolvers<void>();
        }
      } finally {
        watchers.delete(offer);
        signal.removeEventListener("abort", onAbort);
      }
    },
  };
}
