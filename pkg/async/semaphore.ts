// SPDX-License-Identifier: Apache-2.0

/** At most `limit` holders at a time; waiters are served first come, first served. */
export interface Semaphore {
  /** Waits for a place; rejects with the signal's reason when it aborts first. */
  acquire(options: { readonly signal: AbortSignal }): Promise<Disposable>;
  readonly held: number;
}

export function createSemaphore(limit: number): Semaphore {
  let held = 0;
  const waiters = new Set<() => void>();

  function release(): void {
    const first = waiters.values().next();
    if (first.done) {
      held--;
      return;
    }
    waiters.delete(first.value);
    first.value();
  }

  function place(): Disposable {
    let released = false;
    return {
      [Symbol.dispose]() {
        if (released) return;
        released = true;
        release();
      },
    };
  }

  return {
    get held() {
      return held;
    },
    async acquire({ signal }) {
      signal.throwIfAborted();
      if (held < limit) {
        held++;
        return place();
      }
      await new Promise<void>((resolve, reject) => {
        const onAbort = (): void => {
          waiters.delete(grant);
          reject(signal.reason as Error);
        };
        const grant = (): void => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        };
        waiters.add(grant);
        signal.addEventListener("abort", onAbort, { once: true });
      });
      return place();
    },
  };
}
