// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { silentLogger } from "#log";
import { openSwarm, type Swarm, silentSwarmMetrics } from "../index.ts";
import { createLeaseServer, type LeaseServer } from "../testing/lease-server.ts";
import { installVirtualClock, seededRandom, type VirtualClock } from "../testing/virtual-clock.ts";
import { createVirtualNetwork, type VirtualNetwork } from "../testing/virtual-network.ts";
import { createKubernetesBootstrap } from "./kubernetes.ts";

const LEASE = { namespace: "spegel", name: "spegel-leader-election" } as const;
const NODES = 30;
const MINUTE_MS = 60_000;

interface Node {
  readonly ip: string;
  readonly key: string;
  readonly swarm: Swarm;
}

interface World {
  readonly clock: VirtualClock;
  readonly network: VirtualNetwork;
  readonly server: LeaseServer;
  readonly nodes: Node[];
  /** Nodes that do not reach the API server. */
  cutOff: (ip: string) => boolean;
  addNode(ip: string): Promise<Node>;
  leader(): Node | undefined;
  /** Whether every node finds what every other one has. */
  isOne(): Promise<boolean>;
  /** Seconds until it is. */
  untilOne(limitSeconds: number): Promise<number>;
}

/** Whole nodes, but for libp2p, that know of each other by a Lease alone. */
async function inWorld(seed: number, act: (world: World) => Promise<void>): Promise<void> {
  const random = seededRandom(seed);
  using clock = installVirtualClock(random);
  const network = createVirtualNetwork(clock, { roundTripMs: 1 });
  const server = createLeaseServer(random, { maxDelayMs: 20, lossRate: 0 });
  const running = new AbortController();

  async function canFind(asker: Node, holder: Node): Promise<boolean> {
    let isFound = false;
    const signal = AbortSignal.timeout(1_000);
    const looking = (async () => {
      for await (const { id } of asker.swarm.lookup(holder.key, { count: 3, signal })) {
        isFound ||= id === holder.swarm.peerId;
      }
    })().catch(() => {});
    await clock.advance(1_100);
    await looking;
    return isFound;
  }

  const world: World = {
    clock,
    network,
    server,
    nodes: [],
    cutOff: () => false,
    async addNode(ip) {
      const swarm = await openSwarm(
        {
          logger: silentLogger,
          metrics: silentSwarmMetrics,
          bootstrap: [
            createKubernetesBootstrap(
              {
                openClient: async () => server.client(() => world.cutOff(ip)),
                logger: silentLogger,
                random,
                monotonicNow: clock.now,
              },
              { ...LEASE, defaultPort: 5001 },
            ),
          ],
          now: clock.now,
          random,
          openHost: network.openHost,
        },
        { routerAddress: `${ip}:5001`, dataDirectory: undefined, signal: running.signal },
      );
      const node = { ip, key: `sha256:${ip}`, swarm };
      await swarm.advertise([node.key], { signal: running.signal });
      world.nodes.push(node);
      return node;
    },
    leader() {
      const holder = server.stored?.spec?.holderIdentity ?? "";
      return world.nodes.find(({ ip }) => holder.startsWith(`/ip4/${ip}/`));
    },
    async isOne() {
      const { nodes } = world;
      for (let i = 0; i < nodes.length; i += 3) {
        const [asker, holder] = [nodes[i] as Node, nodes[(i * 7 + 11) % nodes.length] as Node];
        if (asker !== holder && !(await canFind(asker, holder))) return false;
        if (asker !== holder && !(await canFind(holder, asker))) return false;
      }
      return true;
    },
    async untilOne(limitSeconds) {
      const startedMs = clock.now();
      while (!(await world.isOne())) {
        const seconds = (clock.now() - startedMs) / 1000;
        assert.ok(seconds < limitSeconds, `not one swarm after ${seconds} s`);
        await clock.advance(1_000);
      }
      return (clock.now() - startedMs) / 1000;
    },
  };
  await act(world);
  const closing = world.nodes.map(({ swarm }) => swarm[Symbol.asyncDispose]());
  await clock.advance(30_000);
  await Promise.all(closing);
}

const addressOf = (number: number): string => `10.0.0.${number + 1}`;

async function startFleet(world: World): Promise<void> {
  await Promise.all(Array.from({ length: NODES }, (_, i) => world.addNode(addressOf(i))));
  await world.untilOne(60);
}

describe("a swarm that knows its leader alone", () => {
  it("is one when all nodes start at the same instant", async () => {
    await inWorld(1, async (world) => {
      await startFleet(world);
      assert.ok(world.nodes.every(({ swarm }) => swarm.ready()));
      assert.ok(world.leader());
    });
  });

  it("takes in new nodes after its leader vanished without a word", async () => {
    await inWorld(2, async (world) => {
      await startFleet(world);
      const dead = world.leader();
      assert.ok(dead);
      world.network.crash(dead.ip);
      world.cutOff = (ip) => ip === dead.ip;
      world.nodes.splice(world.nodes.indexOf(dead), 1);
      await world.clock.advance(20_000); // the lease, a try and its jitter
      const next = world.leader();
      assert.ok(next !== undefined && next !== dead);
      const late = await world.addNode(addressOf(100));
      await world.clock.advance(15_000);
      assert.equal(late.swarm.ready(), true);
      await world.untilOne(60);
    });
  });

  for (const [what, holdsLease] of [
    ["the part with the leader keeps the API server", true],
    ["the leader is on the side without the API server", false],
  ] as const) {
    it(`is cut in two and heals: ${what}`, async () => {
      await inWorld(3, async (world) => {
        await startFleet(world);
        const first = world.leader();
        assert.ok(first);
        const half = (ip: string): number => Number(ip.split(".")[3]) % 2;
        world.cutOff = (ip) => (half(ip) === half(first.ip)) !== holdsLease;
        world.network.partition(half);
        await world.clock.advance(5 * MINUTE_MS);
        assert.equal(world.leader() === first, holdsLease);
        assert.equal(await world.isOne(), false, "the network was not cut");
        world.network.partition(undefined);
        world.cutOff = () => false;
        await world.untilOne(6 * 60);
        assert.ok(world.nodes.every(({ swarm }) => swarm.ready()));
      });
    });
  }
});
