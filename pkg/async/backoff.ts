// SPDX-License-Identifier: Apache-2.0
import { setTimeout as delay } from "node:timers/promises";

/** Resolves after `ms`; rejects with the signal's reason as soon as it aborts. Does not keep the process alive by itself. */
export async function sleep(ms: number, options: { readonly signal: AbortSignal }): Promise<void> {
  options.signal.throwIfAborted();
  try {
    await delay(ms, undefined, { signal: options.signal });
  } catch (error) {
    options.signal.throwIfAborted();
    throw error;
  }
}

export interface BackoffOptions {
  readonly initialMs: number;
  readonly maxMs: number;
  /** Growth per step; default 2. */
  readonly factor?: number;
  /** Random in [0, 1), injected by tests; default Math.random. */
  readonly random?: () => number;
}

/** Exponential back-off with full-range jitter of half: each delay lies in [d/2, d]. `reset` starts over. */
export function createBackoff(options: BackoffOptions): { next(): number; reset(): void } {
  const factor = options.factor ?? 2;
  const random = options.random ?? Math.random;
  let current = options.initialMs;
  return {
    next() {
      const delayMs = current / 2 + (current / 2) * random();
      current = Math.min(current * factor, options.maxMs);
      return delayMs;
    },
    reset() {
      current = options.initialMs;
    },
  };
}
