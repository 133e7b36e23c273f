// SPDX-License-Identifier: Apache-2.0
import { isIP } from "node:net";
import type { networkInterfaces } from "node:os";
import { SwarmError } from "./errors.ts";
import { canonicalIp, type Endpoint, isLoopback, isUnroutable } from "./ip-address.ts";

/** Where the swarm listens, parsed from `--router-addr`. */
export interface RouterAddress {
  /** The one address to listen on; undefined means every address of both families. */
  readonly ip: string | undefined;
  /** 0 lets the operating system choose. */
  readonly port: number;
}

/**
 * Parses `host:port` as Spegel does: an empty host, an unspecified address or a name listens on every address.
 * IPv6 stands in brackets.
 * @throws SwarmError SWARM_ADDRESS_INVALID when there is no port between 0 and 65535.
 */
export function parseRouterAddress(text: string): RouterAddress {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new SwarmError({
      code: "SWARM_ADDRESS_INVALID",
      message: `router address ${JSON.stringify(text)} is not host:port`,
    });
  }
  const host = match[1] ?? match[2] ?? "";
  if (isIP(host) === 0) return { ip: undefined, port };
  const ip = canonicalIp(host);
  return { ip: ip === "0.0.0.0" || ip === "::" ? undefined : ip, port };
}

/** Which addresses this node announces, and which addresses of others it believes. */
export interface AddressPolicy {
  /** Those of `listening` that other nodes may be told. */
  announced(listening: readonly Endpoint[]): Endpoint[];
  /** Whether another node can listen there at all; loopback only among nodes that all listen on loopback. */
  isUsable(endpoint: Endpoint): boolean;
  /** Whether the address is this node's own, so that a connection to it would end here. */
  isOwn(endpoint: Endpoint): boolean;
}

/** Own interfaces are asked for again after this time; addresses do change on a running node. */
const INTERFACES_FRESH_MS = 10_000;

/**
 * Interfaces that exist on every node of a cluster with the same or with unreachable addresses: container bridges,
 * service addresses of kube-proxy, the node-local DNS cache, ends of overlay tunnels.
 */
const CLUSTER_INTERFACE =
  /^(docker\d+|br-[0-9a-f]{12}|cni\d+|cni-podman\d+|virbr\d+|kube-ipvs\d+|nodelocaldns|dummy\d+|cilium_\w+|flannel[.\w]*|cali\w+|tunl\d+|vxlan\S*)$/;

export interface AddressPolicyDeps {
  readonly interfaces: typeof networkInterfaces;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

/**
 * One explicit listening address is announced alone and is the only own address; then several nodes may live on one
 * machine (127.0.0.2, 127.0.0.3, ...). If it is a loopback address, two nodes may even share it: they differ by port.
 */
export function createAddressPolicy(deps: AddressPolicyDeps, listen: RouterAddress): AddressPolicy {
  const onLoopback = listen.ip !== undefined && isLoopback(listen.ip);
  let ownPorts: ReadonlySet<number> = new Set([listen.port]);
  let own:
    | { readonly all: ReadonlySet<string>; readonly cluster: ReadonlySet<string>; readonly readAtMs: number }
    | undefined;

  function interfaces(): { readonly all: ReadonlySet<string>; readonly cluster: ReadonlySet<string> } {
    if (own !== undefined && deps.now() - own.readAtMs < INTERFACES_FRESH_MS) return own;
    const all = new Set<string>();
    const cluster = new Set<string>();
    for (const [name, addresses] of Object.entries(deps.interfaces())) {
      for (const { address } of addresses ?? []) {
        all.add(canonicalIp(address));
        if (CLUSTER_INTERFACE.test(name)) cluster.add(canonicalIp(address));
      }
    }
    own = { all, cluster, readAtMs: deps.now() };
    return own;
  }

  return {
    announced(listening) {
      ownPorts = new Set(listening.map((endpoint) => endpoint.port));
      if (listen.ip !== undefined) return listening.filter((endpoint) => endpoint.ip === listen.ip);
      const { cluster } = interfaces();
      const routable = listening.filter(({ ip }) => !isLoopback(ip) && !isUnroutable(ip));
      const distinct = routable.filter(({ ip }) => !cluster.has(ip));
      return distinct.length > 0 ? distinct : routable;
    },
    isUsable: ({ ip }) => !isUnroutable(ip) && (onLoopback || !isLoopback(ip)),
    isOwn({ ip, port }) {
      if (listen.ip === undefined) return interfaces().all.has(ip);
      return ip === listen.ip && (!onLoopback || ownPorts.has(port));
    },
  };
}
