// SPDX-License-Identifier: Apache-2.0
import type { Peer, Router } from "#routing";

/** Peers of one look-up, as they become known. Belongs to one request; disposing ends the look-up. */
export interface Candidates extends AsyncDisposable {
  /** The next peer that is known and was not taken yet. */
  take(): Peer | undefined;
  /** True when the look-up has ended: no peer will be added any more. */
  readonly ended: boolean;
  /** Resolves at the next change of `take` or `ended`. */
  changed(): Promise<void>;
}

/**
 * Starts a look-up of `key` and collects its peers. A look-up that fails counts as ended without peers.
 *
 * `usable` leaves out peers that are known to be in trouble, so that a resumed request does not return to them.
 */
export function findPeers(
  router: Router,
  key: string,
  options: {
    readonly count: number;
    readonly signal: AbortSignal;
    usable(peer: Peer): boolean;
    /** Peers that are only given when the look-up has ended and no other is left: the one that was just lost, suspects. */
    lastResort(peer: Peer): boolean;
    onFailure(error: unknown): void;
  },
): Candidates {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const queue: Peer[] = [];
  const heldBack: Peer[] = [];
  let ended = false;
  let change = Promise.withResolvers<void>();

  function notify(): void {
    const previous = change;
    change = Promise.withResolvers<void>();
    previous.resolve();
  }

  async function search(): Promise<void> {
    try {
      for await (const peer of router.lookup(key, { count: options.count, signal })) {
        if (!options.usable(peer)) continue;
        if (options.lastResort(peer)) heldBack.push(peer);
        else queue.push(peer);
        notify();
      }
    } catch (error) {
      if (!signal.aborted) options.onFailure(error);
    } finally {
      queue.push(...heldBack);
      ended = true;
      notify();
    }
  }

  const searching = search();
  return {
    take: () => queue.shift(),
    get ended() {
      return ended;
    },
    changed: () => change.promise,
    async [Symbol.asyncDispose]() {
      if (!ended) stop.abort();
      await searching;
    },
  };
}
