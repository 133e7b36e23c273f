// SPDX-License-Identifier: Apache-2.0
import type { ConnectionGater, MultiaddrConnection, PeerId } from "@libp2p/interface";
import { isLoopback, parseEndpoint } from "./ip-address.ts";

export interface CrowdLimitOptions {
  /** Connections of one address whose handshake is not over. Default 100, half of those of all addresses. */
  readonly maxPending?: number;
  /** Nodes of one address that are connected at a time; loopback has no such limit. Default 16. */
  readonly maxNodes?: number;
}

const MAX_PENDING = 100;
const MAX_NODES = 16;

type Gate = Required<
  Pick<
    ConnectionGater,
    "denyInboundConnection" | "denyInboundEncryptedConnection" | "denyOutboundEncryptedConnection"
  >
>;

/**
 * What one IP address may take of a node, so that a machine with a thousand identities is no majority: neither in the
 * routing table nor among the records, which both come with connections. It counts addresses, not networks: Go's limits
 * by /24 and /56 keep clusters whose nodes live in one of these from forming.
 */
export function createCrowdLimit(
  deps: {
    /** The connections that are open. */
    readonly connections: () => Iterable<
      Pick<MultiaddrConnection, "remoteAddr"> & { readonly remotePeer: PeerId }
    >;
  },
  options: CrowdLimitOptions = {},
): Gate {
  const maxPending = options.maxPending ?? MAX_PENDING;
  const maxNodes = options.maxNodes ?? MAX_NODES;
  const pending = new Map<string, Set<MultiaddrConnection>>();

  function done(ip: string, connection: MultiaddrConnection): void {
    const those = pending.get(ip);
    if (those?.delete(connection) === true && those.size === 0) pending.delete(ip);
  }

  function isCrowded(peer: PeerId, connection: MultiaddrConnection): boolean {
    const ip = ipOf(connection);
    if (ip === undefined || isLoopback(ip)) return false;
    const nodes = new Set<string>();
    for (const each of deps.connections()) {
      if (ipOf(each) === ip && !each.remotePeer.equals(peer)) nodes.add(each.remotePeer.toString());
    }
    return nodes.size >= maxNodes;
  }

  return {
    denyInboundConnection(connection) {
      const ip = ipOf(connection);
      if (ip === undefined) return false;
      const those = pending.get(ip) ?? new Set();
      if (those.size >= maxPending) return true;
      those.add(connection);
      pending.set(ip, those);
      connection.addEventListener("close", () => done(ip, connection), { once: true });
      return false;
    },
    denyInboundEncryptedConnection(peer, connection) {
      const ip = ipOf(connection);
      if (ip !== undefined) done(ip, connection);
      return isCrowded(peer, connection);
    },
    denyOutboundEncryptedConnection: isCrowded,
  };
}

function ipOf({ remoteAddr }: Pick<MultiaddrConnection, "remoteAddr">): string | undefined {
  return parseEndpoint(remoteAddr.bytes)?.ip;
}
