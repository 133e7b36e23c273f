// SPDX-License-Identifier: Apache-2.0

/** Remembers which peers were in trouble a moment ago. Bounded; the oldest entries go first. */
export interface PeerHealth {
  /** Keeps the peer out of look-ups for a while. A look-up record outlives its node by up to 19 minutes. */
  avoid(peerId: string): void;
  usable(peerId: string): boolean;
}

export function createPeerHealth(options: {
  /** How long a peer is left out. */
  readonly avoidMs: number;
  readonly limit: number;
  readonly now: () => number;
}): PeerHealth {
  const until = new Map<string, number>();
  return {
    avoid(peerId) {
      until.delete(peerId);
      until.set(peerId, options.now() + options.avoidMs);
      if (until.size > options.limit) until.delete(until.keys().next().value as string);
    },
    usable(peerId) {
      const end = until.get(peerId);
      if (end === undefined) return true;
      if (end > options.now()) return false;
      until.delete(peerId);
      return true;
    },
  };
}
