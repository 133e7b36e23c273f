// SPDX-License-Identifier: Apache-2.0

/** A node that announced a key. */
export interface Peer {
  /** Stable name of the node in the swarm; a libp2p peer id in text form. */
  readonly id: string;
  /** IP addresses without port, IPv6 without brackets; never empty, never the asking node's own. */
  readonly addresses: readonly string[];
}

export interface Router {
  /** True when this node can be found and can find: it has peers, or it is the only node there is. */
  ready(): boolean;
  /**
   * Peers that hold `key`, each once and as soon as it is known, never this node itself. Ends when the search is
   * exhausted, `count` peers were given, or the signal aborts (without an error in each case). The consumer may
   * stop early. Concurrent look-ups of one key do not disturb each other.
   */
  lookup(key: string, options: { readonly count: number; readonly signal: AbortSignal }): AsyncIterable<Peer>;
  /**
   * Announces keys and keeps them announced until withdrawn: re-providing before records expire is the router's
   * work. Idempotent; resolves when the keys are accepted, which may be before other nodes know them. While the
   * node has no peers the keys are kept and announced on connection.
   */
  advertise(keys: readonly string[], options: { readonly signal: AbortSignal }): Promise<void>;
  /** Stops announcing keys. Records on other nodes end when they expire. Unknown keys are ignored. */
  withdraw(keys: readonly string[], options: { readonly signal: AbortSignal }): Promise<void>;
}
