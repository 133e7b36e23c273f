// SPDX-License-Identifier: Apache-2.0
import { sleep } from "#async";

/** Lets `burst` through at once and `perSecond` on average, in order (a token bucket, as client-go's flowcontrol). */
export function createRateLimit(
  limits: { readonly perSecond: number; readonly burst: number },
  now: () => number,
): { wait(options: { readonly signal: AbortSignal }): Promise<void> } {
  const costMs = 1000 / limits.perSecond;
  /** When the bucket would be full again; each request moves it by its cost. */
  let fullAtMs = 0;
  return {
    async wait({ signal }) {
      signal.throwIfAborted();
      fullAtMs = Math.max(fullAtMs, now()) + costMs;
      const waitMs = fullAtMs - now() - limits.burst * costMs;
      if (waitMs > 0) await sleep(waitMs, { signal });
    },
  };
}
