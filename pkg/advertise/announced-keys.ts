// SPDX-License-Identifier: Apache-2.0
import type { Router } from "#routing";

/**
 * The keys that this node has announced.
 *
 * A reconciliation looks at an inventory that is older than hints which arrive meanwhile. So keys carry the round in
 * which they were announced, and a round withdraws none of its own.
 */
export interface AnnouncedKeys {
  readonly size: number;
  /** Begins a round; call it before the inventory is taken. */
  beginRound(): void;
  /** What must be announced and withdrawn so that `wanted` is announced. */
  diff(wanted: ReadonlySet<string>): {
    readonly added: readonly string[];
    readonly removed: readonly string[];
  };
  advertise(keys: readonly string[], options: { readonly signal: AbortSignal }): Promise<void>;
  withdraw(keys: readonly string[], options: { readonly signal: AbortSignal }): Promise<void>;
}

export function createAnnouncedKeys(deps: {
  readonly router: Router;
  readonly onSize: (count: number) => void;
}): AnnouncedKeys {
  const rounds = new Map<string, number>();
  let round = 0;

  return {
    get size() {
      return rounds.size;
    },
    beginRound() {
      round++;
    },
    diff: (wanted) => ({
      added: [...wanted].filter((key) => !rounds.has(key)),
      removed: Array.from(rounds)
        .filter(([key, since]) => !wanted.has(key) && since < round)
        .map(([key]) => key),
    }),
    async advertise(keys, options) {
      if (keys.length === 0) return;
      await deps.router.advertise(keys, options);
      for (const key of keys) rounds.set(key, round);
      deps.onSize(rounds.size);
    },
    async withdraw(keys, options) {
      if (keys.length === 0) return;
      await deps.router.withdraw(keys, options);
      for (const key of keys) rounds.delete(key);
      deps.onSize(rounds.size);
    },
  };
}
