// SPDX-License-Identifier: Apache-2.0
import type { Peer, Router } from "./router.ts";

/** A swarm inside one process: every router made from it sees what the others advertise, at once. */
export interface MemoryRouting {
  join(self: Peer): Router & { setReady(ready: boolean): void };
  /** Declares that `peer` holds `key`, without a router for that peer. */
  add(key: string, peer: Peer): void;
  remove(key: string, peerId: string): void;
}

export function createMemoryRouting(): MemoryRouting {
  const providers = new Map<string, Map<string, Peer>>();

  function add(key: string, peer: Peer): void {
    const known = providers.get(key) ?? new Map<string, Peer>();
    known.set(peer.id, peer);
    providers.set(key, known);
  }

  function remove(key: string, peerId: string): void {
    const known = providers.get(key);
    known?.delete(peerId);
    if (known?.size === 0) providers.delete(key);
  }

  return {
    add,
    remove,
    join(self) {
      let isReady = true;
      return {
        ready: () => isReady,
        setReady(ready) {
          isReady = ready;
        },
        async *lookup(key, { count, signal }) {
          let given = 0;
          for (const peer of [...(providers.get(key)?.values() ?? [])]) {
            if (peer.id === self.id) continue;
            if (given >= count || signal.aborted) return;
            given++;
            yield peer;
          }
        },
        async advertise(keys) {
          for (const key of keys) add(key, self);
        },
        async withdraw(keys) {
          for (const key of keys) remove(key, self.id);
        },
      };
    },
  };
}
