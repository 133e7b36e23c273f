// SPDX-License-Identifier: Apache-2.0
import { silentLogger } from "#log";
import { describeRouterCompliance, eventually, type RouterPair } from "#routing/testing";
import { createStaticBootstrap, openSwarm, type Swarm, silentSwarmMetrics } from "./index.ts";

const signal = AbortSignal.timeout(120_000);

function openNode(ip: string, bootstrap: readonly string[] = []): Promise<Swarm> {
  return openSwarm(
    {
      logger: silentLogger,
      metrics: silentSwarmMetrics,
      bootstrap: [createStaticBootstrap({ addresses: bootstrap, defaultPort: 1 })],
    },
    { routerAddress: `${ip}:0`, dataDirectory: undefined, signal },
  );
}

const addressOf = (swarm: Swarm): string => `${swarm.addresses()[0]}/p2p/${swarm.peerId}`;

async function openPair(order: "a first" | "b first"): Promise<RouterPair> {
  const first = await openNode(order === "a first" ? "127.0.0.2" : "127.0.0.3");
  const second = await openNode(order === "a first" ? "127.0.0.3" : "127.0.0.2", [addressOf(first)]);
  await eventually(
    () => first.peerCount() + second.peerCount(),
    (peers) => peers === 2,
  );
  const [a, b] = order === "a first" ? [first, second] : [second, first];
  return {
    a,
    b,
    addressOfA: "127.0.0.2",
    async [Symbol.asyncDispose]() {
      await Promise.all([a[Symbol.asyncDispose](), b[Symbol.asyncDispose]()]);
    },
  };
}

describeRouterCompliance("a swarm where the searching node joined last", () => openPair("a first"));
describeRouterCompliance("a swarm where the searching node was first", () => openPair("b first"));
