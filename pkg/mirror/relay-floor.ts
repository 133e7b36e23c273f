// SPDX-License-Identifier: Apache-2.0

/** The least that a peer must deliver to a relay. It shrinks when relays are many and share this node's own link. */
export interface RelayFloor {
  /** Counts a relay until it is disposed. */
  enter(): Disposable;
  leastBytesPerSecond(): number;
}

// A node pulls three layers at a time: up to this many relays the floor of one does not depend on the others.
const FEW = 4;

/** @param nodeBytesPerSecond what all relays of this node together must get, spread evenly */
export function createRelayFloor(nodeBytesPerSecond: number): RelayFloor {
  let running = 0;
  return {
    enter() {
      running++;
      return { [Symbol.dispose]: () => void running-- };
    },
    leastBytesPerSecond: () => nodeBytesPerSecond / Math.max(FEW, running),
  };
}
