// SPDX-License-Identifier: Apache-2.0
import { silentLogger } from "#log";
import type { BootstrapPeer } from "../bootstrap/source.ts";
import { openSwarm, type Swarm } from "../swarm.ts";
import { installVirtualClock, seededRandom, type VirtualClock } from "./virtual-clock.ts";
import {
  createVirtualNetwork,
  MESSAGE_KINDS,
  type MessageKind,
  type VirtualNetwork,
} from "./virtual-network.ts";

export interface SimulationOptions {
  readonly nodes: number;
  readonly seed: number;
  /** Keys of each node that nobody else has. */
  readonly keysPerNode: number;
  /** Look-ups of the whole swarm in a second, each by a node and for a key taken at random. */
  readonly lookupsPerSecond: number;
  /** Between the join and the first phase: the last looks around end in it. Default 0. */
  readonly settleSeconds?: number;
  /** Minutes without and with churn. */
  readonly calmMinutes: number;
  readonly churnMinutes: number;
  /** Part of the nodes that is replaced in each minute of churn; half of them vanish without a word. */
  readonly churnPerMinute: number;
  readonly partitionSeconds: number;
  /** How long the swarm is watched when it has found itself again after the loss of a zone. Default 20. */
  readonly afterLossSeconds?: number;
  readonly log?: (line: string) => void;
}

/** What a phase of the simulation came to. */
export interface PhaseReport {
  readonly phase: string;
  readonly lookups: number;
  /** Look-ups that did not find the living holder of their key within a second. */
  readonly failures: number;
  /** Over how many nodes the way to the first provider went, average and the longest. */
  readonly hops: { readonly mean: number; readonly max: number };
  /** Time to the first provider in round trips. */
  readonly roundTrips: { readonly p50: number; readonly p99: number };
  readonly messagesPerNodeAndHour: Readonly<Record<MessageKind, number>>;
  readonly bytesPerNodeAndHour: number;
}

export interface SimulationReport {
  /** What a node sent from the first start to the end of the settling, and the connections that it opened. */
  readonly join: {
    readonly messagesPerNode: Readonly<Record<MessageKind, number>>;
    readonly bytesPerNode: number;
    readonly connectionsPerNode: number;
  };
  readonly phases: readonly PhaseReport[];
  /** Seconds until all nodes were in one swarm, and until it was one again after the partition. */
  readonly joinSeconds: number;
  readonly healSeconds: number;
  /** Seconds after the loss of a third of the nodes until ten seconds in a row passed without a failure. */
  readonly zoneSeconds: number;
  readonly recordsPerNode: { readonly min: number; readonly mean: number; readonly max: number };
  /** Timers that fired; the same for the same seed. */
  readonly events: number;
}

const ROUND_TRIP_MS = 1;
const ZONES = 3;
/** A node announces its keys and is taken for a holder, or asks, when it is this old. */
const GROWN_UP_MS = 5_000;
const LOOKUP_LIMIT_MS = 1_000;
const HEAL_LIMIT_SECONDS = 3_600;
const HEAL_SAMPLES = 40;

interface Node {
  readonly ip: string;
  readonly zone: number;
  readonly keys: readonly string[];
  readonly bornAtMs: number;
  readonly swarm: Swarm;
  records(): number;
  resolved: ((hops: number) => void) | undefined;
}

interface Tally {
  lookups: number;
  failures: number;
  readonly hops: number[];
  readonly roundTrips: number[];
}

/** Runs whole nodes, but for libp2p, on a network in memory and a clock of its own, and tells how they did. */
export async function runSimulation(options: SimulationOptions): Promise<SimulationReport> {
  const random = seededRandom(options.seed);
  using clock = installVirtualClock(random);
  const network = createVirtualNetwork(clock, { roundTripMs: ROUND_TRIP_MS });
  const world = createWorld(options, clock, network, random);
  const { log = () => {} } = options;

  for (let i = 0; i < options.nodes; i++) {
    await world.addNode();
    await clock.advance(10_000 / options.nodes);
  }
  const joinSeconds = await world.untilOne(() => true, 300);
  log(`${options.nodes} nodes are one swarm after ${joinSeconds} s`);
  await clock.advance((options.settleSeconds ?? 0) * 1_000);
  const perNode = (count: number): number => Math.round(count / options.nodes);
  const join = {
    messagesPerNode: eachKind((kind) => perNode(network.traffic.messages[kind])),
    bytesPerNode: perNode(network.traffic.bytes),
    connectionsPerNode: perNode(network.traffic.connections),
  };
  log(JSON.stringify(join));
  const phases: PhaseReport[] = [];
  phases.push(await world.runPhase("calm", options.calmMinutes * 60));
  log(JSON.stringify(phases.at(-1)));
  const records = world.records();
  phases.push(await world.runPhase("churn", options.churnMinutes * 60, options.churnPerMinute));
  log(JSON.stringify(phases.at(-1)));

  const half = (ip: string): number => Number(ip.split(".")[3]) % 2;
  network.partition(half);
  phases.push(await world.runPhase("partition, within each part", options.partitionSeconds, 0, half));
  log(JSON.stringify(phases.at(-1)));
  network.partition(undefined);
  const healSeconds = await world.untilOne((a, b) => half(a) !== half(b), HEAL_LIMIT_SECONDS);
  log(`healed after ${healSeconds} s`);

  world.loseZone(0);
  const zoneSeconds = await world.untilQuiet(10, 300);
  log(`zone lost; quiet after ${zoneSeconds} s`);
  phases.push(await world.runPhase("after the loss of a zone", options.afterLossSeconds ?? 20));
  log(JSON.stringify(phases.at(-1)));
  await world.close();
  return {
    join,
    phases,
    joinSeconds,
    healSeconds,
    zoneSeconds,
    recordsPerNode: records,
    events: clock.fired,
  };
}

function createWorld(
  options: SimulationOptions,
  clock: VirtualClock,
  network: VirtualNetwork,
  random: () => number,
): {
  addNode(): Promise<void>;
  runPhase(
    name: string,
    seconds: number,
    churnPerMinute?: number,
    groupOf?: (ip: string) => number,
  ): Promise<PhaseReport>;
  untilOne(isPair: (a: string, b: string) => boolean, limitSeconds: number): Promise<number>;
  untilQuiet(quietSeconds: number, limitSeconds: number): Promise<number>;
  loseZone(zone: number): void;
  records(): SimulationReport["recordsPerNode"];
  close(): Promise<void>;
} {
  const nodes: Node[] = [];
  const lost: Node[] = [];
  const leaving: PromiseLike<void>[] = [];
  let made = 0;
  const running = new AbortController();

  function pick<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(random() * items.length)];
  }

  /** One of those that suit, if chance meets it; half of all do. */
  function pickWhere<T>(items: readonly T[], suits: (item: T) => boolean): T | undefined {
    for (let tries = 0; tries < 100; tries++) {
      const item = pick(items);
      if (item !== undefined && suits(item)) return item;
    }
    return undefined;
  }

  /** What a bootstrapper answers: some nodes that it takes for alive, the asking one perhaps among them. */
  async function bootstrapPeers(): Promise<BootstrapPeer[]> {
    return Array.from({ length: Math.min(3, nodes.length) }, () => pick(nodes) as Node).map(({ swarm }) => ({
      id: undefined,
      addresses: swarm.addresses(),
    }));
  }

  async function addNode(): Promise<void> {
    const number = made++;
    const ip = `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`;
    let records = (): number => 0;
    const node: { resolved: Node["resolved"] } = { resolved: undefined };
    const swarm = await openSwarm(
      {
        logger: silentLogger,
        metrics: {
          resolved: (_seconds, hops) => node.resolved?.(hops),
          observe: ({ providerRecords }) => {
            records = providerRecords;
          },
        },
        bootstrap: [{ name: "simulation", peers: bootstrapPeers }],
        now: clock.now,
        random,
        openHost: network.openHost,
        createContact: network.createContact,
      },
      { routerAddress: `${ip}:5001`, dataDirectory: undefined, signal: running.signal },
    );
    const keys = Array.from({ length: options.keysPerNode }, (_, i) => `sha256:${number} ${i}`);
    await swarm.advertise(keys, { signal: running.signal });
    nodes.push(
      Object.assign(node, {
        ip,
        zone: number % ZONES,
        keys,
        bornAtMs: clock.now(),
        swarm,
        records: () => records(),
      }),
    );
  }

  function crash(node: Node): void {
    nodes.splice(nodes.indexOf(node), 1);
    network.crash(node.ip);
    lost.push(node);
  }

  async function replaceOne(): Promise<void> {
    const leaver = pick(nodes) as Node;
    if (random() < 0.5) crash(leaver);
    else {
      nodes.splice(nodes.indexOf(leaver), 1);
      leaving.push(leaver.swarm[Symbol.asyncDispose]());
    }
    await addNode();
  }

  const grownUp = (): Node[] => nodes.filter(({ bornAtMs }) => clock.now() - bornAtMs > GROWN_UP_MS);
  const newTally = (): Tally => ({ lookups: 0, failures: 0, hops: [], roundTrips: [] });

  /** One look-up; it fails when the holder is alive at its end and was not found. */
  async function lookUp(asker: Node, holder: Node, tally: Tally): Promise<boolean> {
    const key = pick(holder.keys) as string;
    const startedAtMs = clock.now();
    const signal = AbortSignal.timeout(LOOKUP_LIMIT_MS);
    let isFound = false;
    let hops = 0;
    asker.resolved = (count) => {
      hops = count;
    };
    for await (const peer of asker.swarm.lookup(key, { count: 3, signal })) {
      if (peer.id !== holder.swarm.peerId) continue;
      isFound = true;
      break;
    }
    asker.resolved = undefined;
    if (!isFound && !(nodes.includes(holder) && nodes.includes(asker))) return true;
    tally.lookups++;
    if (isFound) {
      tally.hops.push(hops);
      tally.roundTrips.push((clock.now() - startedAtMs) / ROUND_TRIP_MS);
    } else tally.failures++;
    return isFound;
  }

  /** A second with its share of look-ups and replacements, spread over it. */
  async function second(
    tally: Tally,
    replacements: number,
    groupOf: (ip: string) => number = () => 0,
  ): Promise<void> {
    const candidates = grownUp();
    const steps = Math.max(options.lookupsPerSecond, 1);
    for (let i = 0; i < steps; i++) {
      const asker = pick(candidates);
      const holder = pickWhere(
        candidates,
        (each) => each !== asker && groupOf(each.ip) === groupOf(asker?.ip ?? ""),
      );
      if (asker !== undefined && holder !== undefined && nodes.includes(asker) && nodes.includes(holder)) {
        void lookUp(asker, holder, tally);
      }
      for (let left = replacements / steps; left > 0; left--) if (random() < left) await replaceOne();
      await clock.advance(1000 / steps);
    }
  }

  return {
    addNode,
    async runPhase(name, seconds, churnPerMinute = 0, groupOf) {
      const tally = newTally();
      const before = { ...network.traffic, messages: { ...network.traffic.messages } };
      for (let i = 0; i < seconds; i++) {
        await second(tally, (nodes.length * churnPerMinute) / 60, groupOf);
      }
      const perNodeAndHour = (count: number): number => Math.round((count / nodes.length) * (3600 / seconds));
      return {
        phase: name,
        lookups: tally.lookups,
        failures: tally.failures,
        hops: { mean: mean(tally.hops), max: Math.max(0, ...tally.hops) },
        roundTrips: { p50: percentile(tally.roundTrips, 0.5), p99: percentile(tally.roundTrips, 0.99) },
        messagesPerNodeAndHour: eachKind((kind) =>
          perNodeAndHour(network.traffic.messages[kind] - before.messages[kind]),
        ),
        bytesPerNodeAndHour: perNodeAndHour(network.traffic.bytes - before.bytes),
      };
    },
    async untilOne(isPair, limitSeconds) {
      for (let seconds = 0; seconds <= limitSeconds; seconds++) {
        const tally = newTally();
        const asked: Promise<boolean>[] = [];
        for (let i = 0; i < HEAL_SAMPLES; i++) {
          const asker = pick(nodes) as Node;
          const holder = pickWhere(nodes, (each) => each !== asker && isPair(asker.ip, each.ip)) as Node;
          asked.push(lookUp(asker, holder, tally));
        }
        await clock.advance(LOOKUP_LIMIT_MS);
        if ((await Promise.all(asked)).every(Boolean)) return seconds;
      }
      return Number.POSITIVE_INFINITY;
    },
    async untilQuiet(quietSeconds, limitSeconds) {
      let quietSince = 0;
      for (let seconds = 0; seconds < limitSeconds; seconds++) {
        const tally = newTally();
        await second(tally, 0);
        if (tally.failures > 0) quietSince = seconds + 1;
        if (seconds + 1 - quietSince >= quietSeconds) return quietSince;
      }
      return Number.POSITIVE_INFINITY;
    },
    loseZone(zone) {
      for (const node of nodes.filter((each) => each.zone === zone)) crash(node);
    },
    records() {
      const counts = nodes.map((node) => node.records());
      return { min: Math.min(...counts), mean: mean(counts), max: Math.max(...counts) };
    },
    async close() {
      running.abort();
      const all = [...nodes, ...lost].map(({ swarm }) => swarm[Symbol.asyncDispose]());
      await clock.advance(60_000);
      await Promise.all([...all, ...leaving]);
    },
  };
}

function eachKind(count: (kind: MessageKind) => number): Record<MessageKind, number> {
  return Object.fromEntries(MESSAGE_KINDS.map((kind) => [kind, count(kind)])) as Record<MessageKind, number>;
}

function mean(values: readonly number[]): number {
  const total = values.reduce((sum, value) => sum + value, 0);
  return Math.round((100 * total) / Math.max(values.length, 1)) / 100;
}

function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round(100 * (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0)) / 100;
}
