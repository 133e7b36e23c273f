// SPDX-License-Identifier: Apache-2.0
import { peerIdFromString } from "@libp2p/peer-id";
import { multiaddr } from "@multiformats/multiaddr";
import { SwarmError } from "../errors.ts";

/** A node that may be dialled to join the swarm. */
export interface BootstrapPeer {
  /** Peer id in text form; undefined when only the address is known: then whoever listens there is meant. */
  readonly id: string | undefined;
  /** Multiaddrs of TCP endpoints, without `/p2p/`: `/ip4/10.0.0.1/tcp/5001`. Never empty. */
  readonly addresses: readonly string[];
}

/** Knows nodes of the swarm. */
export interface BootstrapSource {
  readonly name: string;
  /**
   * The nodes known at this moment, at most `MAX_BOOTSTRAP_PEERS`, own ones included; an empty list means that there is nobody yet.
   * @throws SwarmError SWARM_BOOTSTRAP_FAILED when the source itself cannot be asked.
   */
  peers(options: { readonly signal: AbortSignal }): Promise<BootstrapPeer[]>;
  /**
   * What the source does for others for as long as this node is in the swarm. `self` gives its own addresses, each with
   * `/p2p/<id>`; none before it has one. Resolves some time after the signal aborted.
   */
  run?(
    context: { readonly self: () => readonly string[] },
    options: { readonly signal: AbortSignal },
  ): Promise<void>;
}

/** Spegel takes the first three, which makes three nodes the entry of all and strands everybody when they are dead. */
export const MAX_BOOTSTRAP_PEERS = 10;
/** Addresses taken of one node. */
const MAX_ADDRESSES = 8;

/**
 * Reads one node's addresses as they are written down: multiaddrs of an IP address or name, with or without TCP port
 * (then `defaultPort`), with or without `/p2p/<id>`. Addresses of other transports (QUIC) are left out.
 * @throws SwarmError SWARM_ADDRESS_INVALID when one is malformed, none is left, or the ids differ.
 */
export function parseBootstrapPeer(
  texts: readonly string[],
  options: { readonly id?: string; readonly defaultPort: number },
): BootstrapPeer {
  let id = options.id === undefined || options.id === "" ? undefined : parsePeerId(options.id);
  const addresses: string[] = [];
  for (const text of texts.slice(0, MAX_ADDRESSES)) {
    const parsed = parseAddress(text, options.defaultPort);
    if (parsed.id !== undefined && id !== undefined && parsed.id !== id)
      throw invalid(`${text} names another peer than ${id}`);
    id ??= parsed.id;
    if (parsed.address !== undefined) addresses.push(parsed.address);
  }
  if (addresses.length === 0) throw invalid("no TCP address");
  return { id, addresses };
}

function parseAddress(
  text: string,
  defaultPort: number,
): { readonly address: string | undefined; readonly id: string | undefined } {
  let components: ReturnType<ReturnType<typeof multiaddr>["getComponents"]>;
  try {
    components = multiaddr(text).getComponents();
  } catch (cause) {
    throw invalid(`${JSON.stringify(text)} is no multiaddr`, cause);
  }
  const [host, transport, ...rest] = components;
  if (host?.value === undefined || !/^(ip4|ip6|dns|dns4|dns6)$/.test(host.name))
    throw invalid(`${text} does not begin with an address`);
  const suffix = transport?.name === "tcp" ? rest : components.slice(1);
  const [peer] = suffix;
  if (suffix.length > 1 || (peer !== undefined && peer.name !== "p2p"))
    return { address: undefined, id: undefined };
  const port = transport?.name === "tcp" ? transport.value : String(defaultPort);
  return { address: `/${host.name}/${host.value}/tcp/${port}`, id: peer?.value };
}

function parsePeerId(text: string): string {
  try {
    return peerIdFromString(text).toString();
  } catch (cause) {
    throw invalid(`${JSON.stringify(text)} is no peer id`, cause);
  }
}

function invalid(message: string, cause?: unknown): SwarmError {
  return new SwarmError({ code: "SWARM_ADDRESS_INVALID", message, cause });
}
