// SPDX-License-Identifier: Apache-2.0
import type { Contact } from "./contact.ts";

/** What the swarm tells about itself. */
export interface SwarmMetrics {
  /**
   * Seconds from the start of a search to a provider that it found, and over how many nodes the way went: 0 when it was
   * known here, 1 when a node of the routing table named it.
   */
  resolved(seconds: number, hops: number): void;
  /** Called once with the functions that read the current counts. */
  observe(counts: {
    readonly peers: () => number;
    readonly providerRecords: () => number;
    readonly ownKeys: () => number;
  }): void;
}

/** Asks one node; requests to one node are answered in order. */
export interface PeerClient {
  /**
   * Sends whole frames of which exactly one asks for an answer, and resolves with that answer without its length.
   * @throws SwarmError SWARM_PEER_UNREACHABLE when the node cannot be dialled or does not answer in time.
   */
  request(
    contact: Contact,
    frames: Uint8Array,
    options: { readonly signal: AbortSignal },
  ): Promise<Uint8Array>;
}
