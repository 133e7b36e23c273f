// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { it } from "node:test";
import { silentLogger } from "#log";
import { openSwarm, type Swarm } from "./swarm.ts";
import { installVirtualClock, seededRandom } from "./testing/virtual-clock.ts";
import { createVirtualNetwork } from "./testing/virtual-network.ts";

it("a swarm of more nodes than connections comes to rest instead of dialling in turns", async () => {
  const random = seededRandom(1);
  using clock = installVirtualClock(random);
  const network = createVirtualNetwork(clock, { roundTripMs: 1 });
  const running = new AbortController();
  const nodes: Swarm[] = [];
  for (let i = 0; i < 30; i++) {
    const first = nodes[0];
    nodes.push(
      await openSwarm(
        {
          logger: silentLogger,
          metrics: { resolved: () => {}, observe: () => {} },
          bootstrap: [
            {
              name: "first",
              peers: async () =>
                first === undefined ? [] : [{ id: undefined, addresses: first.addresses() }],
            },
          ],
          now: clock.now,
          random,
          openHost: network.openHost,
        },
        {
          routerAddress: `10.0.0.${i + 1}:5001`,
          dataDirectory: undefined,
          maxConnections: 10,
          signal: running.signal,
        },
      ),
    );
    await clock.advance(100);
  }
  for (let second = 0; second < 30; second++) {
    await clock.advance(1_000);
    assert.ok(
      network.traffic.connections < 6_000,
      `${network.traffic.connections} connections to begin with`,
    );
  }
  const before = network.traffic.connections;
  await clock.advance(60_000);
  const perNodeAndMinute = (network.traffic.connections - before) / nodes.length;
  const known = nodes.map((node) => node.peerCount());
  const closing = nodes.map((node) => node[Symbol.asyncDispose]());
  await clock.advance(60_000);
  await Promise.all(closing);
  assert.ok(perNodeAndMinute < 10, `${perNodeAndMinute} new connections per node in a minute`);
  assert.ok(Math.min(...known) >= 20, `tables of ${known.join(", ")} nodes`);
});
