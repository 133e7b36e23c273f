// SPDX-License-Identifier: Apache-2.0

/** What the list knows of a node. */
export interface NodeAddressEntry {
  readonly name: string;
  /** Addresses under which other nodes reach it (Kubernetes' InternalIP), IPv4 and IPv6 in any order. */
  readonly addresses: readonly string[];
  /** The condition Ready is True. */
  readonly isReady: boolean;
  /** The node is being deleted. */
  readonly isTerminating: boolean;
  /** Milliseconds since 1970. */
  readonly createdAtMs: number;
}

/** Where nodes come from. */
export interface NodeSource {
  /**
   * All nodes as last seen, or undefined before they were seen for the first time. When the source fails later,
   * the last answer stays. The same array is returned until something changes.
   */
  nodes(): readonly NodeAddressEntry[] | undefined;
}
