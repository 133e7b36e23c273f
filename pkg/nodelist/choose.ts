// SPDX-License-Identifier: Apache-2.0
import { BlockList, isIP, isIPv4, isIPv6 } from "node:net";
import type { NodeAddressEntry } from "./node-source.ts";

export type IPFamily = "IPv4" | "IPv6";

/** Nobody on another node can dial these: "this host", link-local and multicast. */
const UNREACHABLE = new BlockList();
UNREACHABLE.addSubnet("0.0.0.0", 8, "ipv4");
UNREACHABLE.addSubnet("169.254.0.0", 16, "ipv4");
UNREACHABLE.addSubnet("224.0.0.0", 3, "ipv4");
UNREACHABLE.addAddress("::", "ipv6");
UNREACHABLE.addSubnet("fe80::", 10, "ipv6");
UNREACHABLE.addSubnet("ff00::", 8, "ipv6");

const MAX_ADDRESSES_PER_NODE = 8;

/**
 * Nodes that stay and that can be dialled, with their addresses in the order of `families`: the preferred family
 * first, families that the cluster does not use left out.
 */
export function keepReachable(
  nodes: readonly NodeAddressEntry[],
  families: readonly IPFamily[],
): NodeAddressEntry[] {
  return nodes.flatMap((node) => {
    if (node.isTerminating) return [];
    const addresses = families
      .flatMap((family) => node.addresses.filter((address) => isReachable(address, family)))
      .slice(0, MAX_ADDRESSES_PER_NODE);
    return addresses.length === 0 ? [] : [{ ...node, addresses }];
  });
}

function isReachable(address: string, family: IPFamily): boolean {
  // An address with a zone (fe80::1%eth0) means something on its own node only.
  if (isIP(address) === 0 || address.includes("%")) return false;
  if (family === "IPv4") return isIPv4(address) && !UNREACHABLE.check(address, "ipv4");
  return isIPv6(address) && !UNREACHABLE.check(address, "ipv6");
}

/** Ready nodes first, then oldest first: old nodes have proved to stay, and the order is the same for every caller. */
export function order(nodes: readonly NodeAddressEntry[]): NodeAddressEntry[] {
  return nodes.toSorted(
    (left, right) =>
      Number(right.isReady) - Number(left.isReady) ||
      left.createdAtMs - right.createdAtMs ||
      (left.name < right.name ? -1 : Number(left.name > right.name)),
  );
}

/**
 * At most `limit` of the ordered nodes, begun at another one in each turn.
 *
 * Spegel dials the first three elements only. Would every caller get the same three, these would carry all new
 * nodes, and nobody could join while they are gone. Turning the list keeps the set the same, so that the answers
 * overlap and the swarm stays one. Ready nodes turn among themselves and stay ahead of the others.
 *
 * @param turn number of the request, from 0
 */
export function limit(
  nodes: readonly NodeAddressEntry[],
  options: { readonly limit: number; readonly turn: number },
): NodeAddressEntry[] {
  const chosen = nodes.slice(0, options.limit);
  const ready = chosen.filter((node) => node.isReady);
  const others = chosen.filter((node) => !node.isReady);
  return [...rotate(ready, options.turn), ...rotate(others, options.turn)];
}

function rotate<T>(list: readonly T[], turn: number): T[] {
  const start = list.length === 0 ? 0 : turn % list.length;
  return [...list.slice(start), ...list.slice(0, start)];
}
