// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createLeaderCampaign, type LeaderCampaign } from "#kube";
import { silentLogger } from "#log";
import { createLeaseServer, type LeaseServer } from "../testing/lease-server.ts";
import { installVirtualClock, seededRandom, type VirtualClock } from "../testing/virtual-clock.ts";
import { createKubernetesBootstrap } from "./kubernetes.ts";

const LEASE = { namespace: "spegel", name: "spegel-leader-election" } as const;
const TIMES = { leaseDurationMs: 10_000, renewDeadlineMs: 5_000, retryPeriodMs: 2_000 } as const;
const MINUTE_MS = 60_000;

interface Racer {
  readonly name: string;
  readonly campaign: LeaderCampaign;
  readonly stop: AbortController;
  readonly running: Promise<void>;
}

function startRacer(server: LeaseServer, clock: VirtualClock, name: string, random: () => number): Racer {
  // Clocks that are hours apart, and run up to a fifth too fast or too slow.
  const rate = 0.83 + 0.37 * random();
  const offsetMs = (random() - 0.5) * 6 * 3_600_000;
  const stop = new AbortController();
  const campaign = createLeaderCampaign(
    {
      identity: () => name,
      openClient: async () => server.client(),
      logger: silentLogger,
      random,
      now: () => Date.UTC(2026, 0, 1) + clock.now() + offsetMs,
      monotonicNow: () => clock.now() * rate + offsetMs,
    },
    { ...LEASE, ...TIMES },
  );
  return { name, campaign, stop, running: campaign.run({ signal: stop.signal }) };
}

/** Ten candidates for ten minutes, of which the leader is now and then cut off, stopped, or left without an API server. */
async function race(seed: number): Promise<void> {
  const random = seededRandom(seed);
  using clock = installVirtualClock(random);
  const server = createLeaseServer(random, { maxDelayMs: 400, lossRate: 0.03 });
  let racers = Array.from({ length: 10 }, (_, i) => startRacer(server, clock, `node-${i}`, random));
  let ledMs = 0;
  const leaders = new Set<string>();
  const STEP_MS = 50;
  for (let atMs = 0; atMs < 10 * MINUTE_MS; atMs += STEP_MS) {
    await clock.advance(STEP_MS);
    const leading = racers.filter(({ campaign }) => campaign.isLeading);
    assert.ok(
      leading.length <= 1,
      `seed ${seed}, ${atMs} ms: ${leading.map(({ name }) => name).join(" and ")} lead at once`,
    );
    const [leader] = leading;
    if (leader !== undefined) {
      ledMs += STEP_MS;
      leaders.add(leader.name);
    }
    if (atMs % MINUTE_MS === 30_000 && leader !== undefined) {
      leader.stop.abort(new Error("stopped"));
      racers = racers.filter((racer) => racer !== leader);
      racers.push(startRacer(server, clock, `${leader.name}+`, random));
    }
    if (atMs % (3 * MINUTE_MS) === 0) server.isAway = atMs > 0;
    if (atMs % (3 * MINUTE_MS) === 20_000) server.isAway = false;
  }
  assert.ok(leaders.size > 3, `seed ${seed}: only ${leaders.size} ever led`);
  assert.ok(ledMs > 4 * MINUTE_MS, `seed ${seed}: somebody led for ${ledMs} ms only`);
  assert.ok(server.conflicts > 0, `seed ${seed}: no write ever met another`);
  for (const { stop } of racers) stop.abort(new Error("end"));
  await clock.advance(10_000);
  await Promise.all(racers.map(({ running }) => running));
}

describe("leader election", () => {
  it("never has two leaders at once, whatever the clocks, delays, losses and outages", async () => {
    for (let seed = 1; seed <= 12; seed++) await race(seed);
  });

  it("makes one of ten that start at the same instant the leader, and tells all of it", async () => {
    const random = seededRandom(7);
    using clock = installVirtualClock(random);
    const server = createLeaseServer(random, { maxDelayMs: 5, lossRate: 0 });
    const racers = Array.from({ length: 10 }, (_, i) => startRacer(server, clock, `node-${i}`, random));
    await clock.advance(5_000);
    const known = await Promise.all(
      racers.map(({ campaign }) => campaign.leader({ signal: AbortSignal.timeout(1) })),
    );
    assert.equal(new Set(known).size, 1);
    assert.deepEqual(
      racers.filter(({ campaign }) => campaign.isLeading).map(({ name }) => name),
      [known[0]],
    );
    assert.ok(server.conflicts >= 1, "they did not meet");
    for (const { stop } of racers) stop.abort(new Error("end"));
    await clock.advance(5_000);
    await Promise.all(racers.map(({ running }) => running));
  });

  it("steps down when the API server is away for a minute, remembers who led, and leads again afterwards", async () => {
    const random = seededRandom(3);
    using clock = installVirtualClock(random);
    const server = createLeaseServer(random, { maxDelayMs: 5, lossRate: 0 });
    const { campaign, stop, running } = startRacer(server, clock, "node", random);
    await clock.advance(30_000);
    assert.equal(campaign.isLeading, true);
    server.isAway = true;
    await clock.advance(7_000); // the renew deadline, on the slowest clock
    assert.equal(campaign.isLeading, false);
    const before = server.writes;
    await clock.advance(MINUTE_MS - 7_000);
    assert.equal(campaign.isLeading, false);
    assert.equal(await campaign.leader({ signal: AbortSignal.timeout(1) }), "node");
    assert.equal(server.writes, before);
    server.isAway = false;
    await clock.advance(12_000); // the longest back-off and its jitter
    assert.equal(campaign.isLeading, true);
    stop.abort(new Error("end"));
    await clock.advance(1_000);
    await running;
    assert.equal(server.stored?.spec?.holderIdentity, "", "the Lease is left to the next one");
  });

  it("keeps naming the last leader as the place to join while the API server is away", async () => {
    const random = seededRandom(4);
    using clock = installVirtualClock(random);
    const server = createLeaseServer(random, { maxDelayMs: 5, lossRate: 0 });
    const id = "12D3KooWGRUfp5aa7gKGYFf4dXLnNFDRSr6NqxdKPXj9AnRnLGqZ";
    server.stored = {
      metadata: { ...LEASE, resourceVersion: "0" },
      spec: { holderIdentity: `/ip4/10.0.0.9/tcp/5001/p2p/${id}`, leaseDurationSeconds: 3600 },
    };
    const stop = new AbortController();
    const source = createKubernetesBootstrap(
      { openClient: async () => server.client(), logger: silentLogger, random },
      { ...LEASE, defaultPort: 5001 },
    );
    const running = source.run?.({ self: () => [] }, { signal: stop.signal });
    await clock.advance(1_000);
    server.isAway = true;
    await clock.advance(MINUTE_MS);
    assert.deepEqual(await source.peers({ signal: stop.signal }), [
      { id, addresses: ["/ip4/10.0.0.9/tcp/5001"] },
    ]);
    assert.equal(server.writes, 0, "a node without an address runs for nothing");
    stop.abort(new Error("end"));
    await clock.advance(1_000);
    await running;
  });
});
