// SPDX-License-Identifier: Apache-2.0
import { networkInterfaces } from "node:os";
import type { Connection, Stream } from "@libp2p/interface";
import { silentLogger } from "#log";
import type { Peer } from "#routing";
import { createAddressPolicy, parseRouterAddress } from "../address-policy.ts";
import { type Host, type HostEvents, openHost } from "../host.ts";
import { openIdentity } from "../identity.ts";
import {
  type BootstrapSource,
  createStaticBootstrap,
  openSwarm,
  type Swarm,
  type SwarmOptions,
  silentSwarmMetrics,
} from "../index.ts";
import type { LivenessOptions } from "../liveness.ts";

/** Ends a test file that hangs; individual tests have no limits of their own. */
export const testSignal = AbortSignal.timeout(180_000);

/** A whole node on loopback. `bootstrap` are multiaddrs with peer id, as `addressOf` gives them. */
export function openNode(
  routerAddress: string,
  bootstrap: readonly string[] | BootstrapSource = [],
  options: Partial<SwarmOptions> = {},
): Promise<Swarm> {
  const source =
    "peers" in bootstrap ? bootstrap : createStaticBootstrap({ addresses: bootstrap, defaultPort: 1 });
  return openSwarm(
    { logger: silentLogger, metrics: silentSwarmMetrics, bootstrap: [source] },
    { routerAddress, dataDirectory: undefined, signal: testSignal, ...options },
  );
}

export function addressOf(node: Swarm): string {
  return `${node.addresses()[0]}/p2p/${node.peerId}`;
}

export async function find(node: Swarm, key: string, count = 10): Promise<Peer[]> {
  const found: Peer[] = [];
  for await (const peer of node.lookup(key, { count, signal: testSignal })) found.push(peer);
  return found;
}

/** A libp2p node of the same protocol that a test gives its behaviour. */
export async function openBareHost(
  ip: string,
  serve: (stream: Stream, connection: Connection) => void = () => {},
  options: { readonly liveness?: LivenessOptions; readonly events?: Partial<HostEvents> } = {},
): Promise<Host> {
  const listen = parseRouterAddress(`${ip}:0`);
  return openHost({
    privateKey: await openIdentity(
      { logger: silentLogger },
      { dataDirectory: undefined, signal: testSignal },
    ),
    listen,
    policy: createAddressPolicy({ interfaces: networkInterfaces, now: () => performance.now() }, listen),
    serve,
    events: {
      joined: () => {},
      left: () => {},
      connected: () => {},
      disconnected: () => {},
      ...options.events,
    },
    ...(options.liveness === undefined ? {} : { liveness: options.liveness }),
  });
}
