// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createLogger } from "#log";
import { eventually } from "#routing/testing";
import { installVirtualClock, seededRandom } from "../testing/virtual-clock.ts";
import { createJoining, type JoinDeps, type Joining } from "./join.ts";
import type { BootstrapPeer, BootstrapSource } from "./source.ts";

const SELF: BootstrapPeer = { id: "self", addresses: ["/ip4/10.0.0.1/tcp/1"] };
const OTHER: BootstrapPeer = { id: "other", addresses: ["/ip4/10.0.0.2/tcp/1"] };
const DEAD: BootstrapPeer = { id: "dead", addresses: ["/ip4/10.0.0.3/tcp/1"] };

interface Rig extends AsyncDisposable {
  readonly joining: Joining;
  readonly log: string[];
  /** What the sources answer, to be changed at will. */
  answers: (BootstrapPeer[] | Error)[];
  readonly asked: { count: number };
  readonly state: { peers: number; joined: number };
  lose(peers: number): void;
}

function openRig(answers: Rig["answers"], options: Parameters<typeof createJoining>[1] = {}): Rig {
  const log: string[] = [];
  const state = { peers: 0, joined: 0 };
  const asked = { count: 0 };
  let wake = Promise.withResolvers<void>();
  const rig = { answers, log, state, asked };
  const sources: BootstrapSource[] = answers.map((_, i) => ({
    name: `source ${i}`,
    async peers() {
      asked.count++;
      const answer = rig.answers[i];
      if (answer instanceof Error) throw answer;
      return answer ?? [];
    },
  }));
  const deps: JoinDeps = {
    logger: createLogger({ level: "WARN", sink: { write: (line) => void log.push(JSON.parse(line).msg) } }),
    sources,
    isSelf({ id }) {
      if (id === "poison") throw new Error("poison");
      return id === "self";
    },
    peerCount: () => state.peers,
    async untilFewer(than, { signal }) {
      const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      while (state.peers >= than && !signal.aborted) await Promise.race([wake.promise, aborted]);
    },
    async connect({ id }) {
      if (id === "dead") throw new Error("dead");
      state.peers = 8;
    },
    onJoined: () => void state.joined++,
  };
  const joining = createJoining(deps, { retryInitialMs: 1, retryMaxMs: 2, ...options });
  const stop = new AbortController();
  const running = joining.run({ signal: stop.signal });
  return Object.assign(rig, {
    joining,
    lose(peers: number) {
      state.peers -= peers;
      wake.resolve();
      wake = Promise.withResolvers();
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  });
}

describe("joining", () => {
  it("connects to the nodes that a source names, and passes over dead ones", async () => {
    await using rig = openRig([[SELF, DEAD, OTHER]]);
    await eventually(
      () => rig.state.joined,
      (joined) => joined === 1,
    );
    assert.equal(rig.joining.isAlone, false);
    assert.equal(rig.asked.count, 1);
    assert.deepEqual(rig.log, []);
  });

  it("goes on for ever while nobody can be reached, and says so", async () => {
    await using rig = openRig([[DEAD]]);
    await eventually(
      () => rig.asked.count,
      (count) => count > 5,
    );
    assert.ok(rig.log.includes("no bootstrap peer was reached"));
    assert.equal(rig.joining.isAlone, false);
    rig.answers = [[DEAD, OTHER]];
    await eventually(
      () => rig.state.joined,
      (joined) => joined === 1,
    );
  });

  it("is alone when all sources name nobody but this node, and not before all have answered", async () => {
    await using rig = openRig([[SELF], new Error("down")]);
    await eventually(
      () => rig.asked.count,
      (count) => count > 6,
    );
    assert.equal(rig.joining.isAlone, false);
    rig.answers = [[SELF], []];
    await eventually(() => rig.joining.isAlone, Boolean);
    rig.answers = [new Error("down"), new Error("down")];
    const before = rig.asked.count;
    await eventually(
      () => rig.asked.count,
      (count) => count > before + 6,
    );
    assert.equal(rig.joining.isAlone, true, "a source that fails later does not tell of others");
    rig.answers = [[SELF, DEAD], []];
    await eventually(
      () => rig.joining.isAlone,
      (alone) => !alone,
    );
  });

  it("goes on after an unforeseen error", async () => {
    await using rig = openRig([[{ id: "poison", addresses: [] }]]);
    await eventually(
      () => rig.log.filter((message) => message === "bootstrap attempt failed").length,
      (count) => count > 2,
    );
    rig.answers = [[OTHER]];
    await eventually(
      () => rig.state.joined,
      (joined) => joined === 1,
    );
  });

  it("begins anew at once when the last node is lost", async () => {
    await using rig = openRig([[OTHER]]);
    await eventually(
      () => rig.state.joined,
      (joined) => joined === 1,
    );
    rig.lose(8);
    await eventually(
      () => rig.state.joined,
      (joined) => joined === 2,
    );
  });

  it("asks again soon when a quarter of the nodes is lost, and not for fewer", async () => {
    await using rig = openRig([[OTHER]]);
    await eventually(
      () => rig.state.joined,
      (joined) => joined === 1,
    );
    rig.lose(2);
    assert.equal(rig.asked.count, 1);
    rig.lose(1);
    await eventually(
      () => rig.asked.count,
      (count) => count > 1,
    );
  });

  it("asks again now and then while connected", async () => {
    await using rig = openRig([[OTHER]], { intervalMs: 1 });
    await eventually(
      () => rig.asked.count,
      (count) => count > 3,
    );
  });

  it("gives up one attempt that takes too long, and tries again", async () => {
    let attempts = 0;
    const stop = new AbortController();
    const joining = createJoining(
      {
        logger: createLogger({ level: "ERROR", sink: { write: () => {} } }),
        sources: [
          {
            name: "hanging",
            peers: ({ signal }) =>
              new Promise((_, reject) => {
                attempts++;
                signal.addEventListener("abort", () => reject(signal.reason as Error));
              }),
          },
        ],
        isSelf: () => false,
        peerCount: () => 0,
        untilFewer: async () => {},
        connect: async () => {},
        onJoined: () => {},
      },
      { attemptTimeoutMs: 5, retryInitialMs: 1, retryMaxMs: 1 },
    );
    const running = joining.run({ signal: stop.signal });
    await eventually(
      () => attempts,
      (count) => count > 2,
    );
    assert.equal(joining.isAlone, false);
    stop.abort();
    await running;
  });
});

describe("the times of joining", () => {
  const silent = createLogger({ level: "ERROR", sink: { write: () => {} } });

  /** A node that notes when it asks, on a clock of its own. */
  function start(peers: { count: number }, random: () => number) {
    const askedAtMs: number[] = [];
    const stop = new AbortController();
    const joining = createJoining({
      logger: silent,
      sources: [
        {
          name: "noting",
          async peers() {
            askedAtMs.push(performance.now());
            if (peers.count === 0) throw new Error("a wrong answer");
            return [OTHER];
          },
        },
      ],
      isSelf: () => false,
      peerCount: () => peers.count,
      untilFewer: (_, { signal }) =>
        new Promise((resolve) => signal.addEventListener("abort", () => resolve())),
      connect: async () => {},
      onJoined: () => {},
      random,
    });
    const running = joining.run({ signal: stop.signal });
    return {
      askedAtMs,
      waits: () => askedAtMs.slice(1).map((atMs, i) => atMs - (askedAtMs[i] as number)),
      async end() {
        stop.abort();
        await running;
      },
    };
  }

  it("grow from 50 ms to 10 s while nobody is found, and never get out of hand, with chance in each", async () => {
    using clock = installVirtualClock(seededRandom(1));
    const node = start({ count: 0 }, seededRandom(2));
    await clock.advance(3_600_000);
    const waits = node.waits();
    let longestMs = 50;
    for (const waitMs of waits) {
      assert.ok(
        waitMs >= longestMs / 2 && waitMs <= longestMs,
        `${waitMs} ms where ${longestMs} is the most`,
      );
      longestMs = Math.min(longestMs * 2, 10_000);
    }
    assert.ok(waits.length > 360, `${waits.length} times in an hour`);
    assert.ok(new Set(waits.slice(-50)).size > 40, "the waits are all the same");
    await node.end();
  });

  it("keep nodes out of step that began at the same instant", async () => {
    using clock = installVirtualClock(seededRandom(3));
    const nodes = Array.from({ length: 20 }, (_, i) => start({ count: 0 }, seededRandom(100 + i)));
    await clock.advance(600_000);
    const inOneSecond = new Map<number, number>();
    for (const atMs of nodes.flatMap(({ askedAtMs }) => askedAtMs).filter((at) => at > 60_000)) {
      const second = Math.floor(atMs / 1000);
      inOneSecond.set(second, (inOneSecond.get(second) ?? 0) + 1);
    }
    assert.ok(Math.max(...inOneSecond.values()) < 10, "half of them ask in the same second");
    for (const node of nodes) await node.end();
  });

  it("bring a node that was alone for an hour in within 10 s of somebody appearing", async () => {
    using clock = installVirtualClock(seededRandom(4));
    const peers = { count: 0 };
    const node = start(peers, seededRandom(5));
    await clock.advance(3_600_000);
    const before = node.askedAtMs.length;
    peers.count = 1; // from now on the source has an answer
    await clock.advance(10_000);
    assert.ok(node.askedAtMs.length > before);
    await node.end();
  });

  it("are 2.5 to 5 minutes while the swarm is whole", async () => {
    using clock = installVirtualClock(seededRandom(6));
    const node = start({ count: 8 }, seededRandom(7));
    await clock.advance(4 * 3_600_000);
    const waits = node.waits();
    assert.ok(waits.length >= 48 && waits.length <= 96, `${waits.length} times in four hours`);
    for (const waitMs of waits) assert.ok(waitMs >= 150_000 && waitMs <= 300_000, `${waitMs} ms`);
    await node.end();
  });
});
