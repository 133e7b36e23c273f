// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { identify } from "@libp2p/identify";
import { type KadDHT, kadDHT, passthroughMapper } from "@libp2p/kad-dht";
import { noise } from "@libp2p/noise";
import { ping } from "@libp2p/ping";
import { tcp } from "@libp2p/tcp";
import { yamux } from "@libp2p/yamux";
import { multiaddr } from "@multiformats/multiaddr";
import { createLibp2p } from "libp2p";
import { CID } from "multiformats/cid";
import * as raw from "multiformats/codecs/raw";
import * as Digest from "multiformats/hashes/digest";
import type { BenchNode } from "./swarm-worker.ts";

/** Provide calls of a burst that run at a time. */
const PARALLEL_PROVIDES = 10;

function cidOf(key: string): CID {
  return CID.createV1(raw.code, Digest.create(0x12, createHash("sha256").update(key).digest()));
}

/** js-libp2p with its Kademlia DHT as is: only what the protocol and loopback addresses need is set. */
export async function openStockNode(ip: string, options: { readonly blind: boolean }): Promise<BenchNode> {
  const stored = new Set<string>();
  const node = await createLibp2p({
    addresses: { listen: [`/ip4/${ip}/tcp/0`] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // Many nodes of one machine join at once; by default five connections in a second are let in.
    connectionManager: { inboundConnectionThreshold: 1_000, maxIncomingPendingConnections: 1_000 },
    connectionGater: { denyDialMultiaddr: () => false },
    services: {
      identify: identify(),
      ping: ping(),
      dht: kadDHT({ protocol: "/spegel/kad/1.0.0", clientMode: false, peerInfoMapper: passthroughMapper }),
    },
  });
  const { datastore } = (node as unknown as { components: { datastore: { put: Put } } }).components;
  const put = datastore.put.bind(datastore);
  const own = node.peerId.toString();
  datastore.put = async (key, value, putOptions) => {
    const name = key.toString();
    if (name.startsWith("/dht/provider/") && !name.endsWith(own)) {
      if (options.blind) return key;
      stored.add(name);
    }
    return put(key, value, putOptions);
  };
  const dht = node.services.dht as KadDHT;

  async function provideAll(keys: readonly string[]): Promise<void> {
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < keys.length) {
        for await (const _ of dht.provide(cidOf(keys[next++] as string))); // the events of one provide
      }
    };
    await Promise.all(Array.from({ length: PARALLEL_PROVIDES }, worker));
  }

  return {
    address: node.getMultiaddrs()[0]?.toString() ?? "",
    async join(addresses) {
      const [first] = addresses;
      if (first === undefined || first.endsWith(own)) return;
      for (let tries = 1; ; tries++) {
        try {
          await node.dial(multiaddr(first));
          break;
        } catch (error) {
          if (tries === 10) throw error; // a busy machine lets some handshakes time out
        }
      }
      while (routingTableSize(dht) === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    },
    refresh: async () => {}, // it does so by itself; to wait for it takes minutes among 50 nodes
    peerCount: () => routingTableSize(dht),
    recordCount: () => stored.size,
    provide: (keys) => {
      provideAll(keys).catch((error: unknown) => console.error(error));
    },
    async *find(key, signal) {
      try {
        for await (const event of dht.findProviders(cidOf(key), { signal })) {
          if (event.name !== "PROVIDER" && event.name !== "PEER_RESPONSE") continue;
          for (const provider of "providers" in event ? event.providers : []) {
            if (!provider.id.equals(node.peerId)) yield provider;
          }
        }
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
  };
}

type Put = (key: { toString(): string }, value: unknown, options?: unknown) => Promise<unknown>;

function routingTableSize(dht: KadDHT): number {
  return (dht as unknown as { readonly routingTable: { readonly size: number } }).routingTable.size;
}
