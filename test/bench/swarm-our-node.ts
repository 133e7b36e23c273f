// SPDX-License-Identifier: Apache-2.0
import { isIPv6 } from "node:net";
import { silentLogger } from "#log";
import { createStaticBootstrap, openSwarm } from "#swarm";
import type { BenchNode } from "./swarm-worker.ts";

/** A node as the daemon opens it, with its default settings. */
export async function openOurNode(ip: string, options: { readonly blind: boolean }): Promise<BenchNode> {
  let bootstrap: readonly string[] = [];
  let recordCount = (): number => 0;
  const signal = AbortSignal.timeout(60_000);
  const swarm = await openSwarm(
    {
      logger: silentLogger,
      metrics: {
        resolved: () => {},
        observe: ({ providerRecords }) => {
          recordCount = providerRecords;
        },
      },
      bootstrap: [
        {
          name: "bench",
          peers: (each) => createStaticBootstrap({ addresses: bootstrap, defaultPort: 1 }).peers(each),
        },
      ],
    },
    {
      routerAddress: `${isIPv6(ip) ? `[${ip}]` : ip}:0`,
      dataDirectory: undefined,
      signal,
      join: { retryMaxMs: 200 },
      ...(options.blind ? { providers: { maxRecords: 0 } } : {}),
    },
  );
  return {
    address: `${swarm.addresses()[0]}/p2p/${swarm.peerId}`,
    async join(addresses) {
      bootstrap = addresses;
      while (swarm.peerCount() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    },
    refresh: async () => {}, // joining has looked for the neighbours
    peerCount: () => swarm.peerCount(),
    recordCount: () => recordCount(),
    provide: (keys) => void swarm.advertise(keys, { signal: new AbortController().signal }),
    find: (key, findSignal) => swarm.lookup(key, { count: 3, signal: findSignal }),
  };
}
