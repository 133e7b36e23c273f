// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { sleep } from "#async";
import { createContainerdDriver } from "#containerd/testing";
import { SPEGEL_BINARY_PATH, SPEGEL_UNIT_NAME } from "#nodelayout";
import { type Digest, sha256Digest } from "#oci";
import { UPSTREAM } from "../node-rig/index.ts";
import { type RunningProcess, startProcess } from "../process/index.ts";
import { drainBody, type Transfer } from "./drain-body.ts";
import type { SystemdRig } from "./rig.ts";

const execute = promisify(execFile);

const PEERS_PROGRAM = fileURLToPath(new URL("./swarm-peers.ts", import.meta.url));
const REPOSITORY = "lib/app";
const ORIGIN = { registry: UPSTREAM, repository: REPOSITORY };
const REGISTRY_PORT = 5000;
const ROUTER_PORT = 5001;
const FIRST_PEER_HOST = 101;
const SAMPLE_INTERVAL_MS = 10;
const POLL_INTERVAL_MS = 50;
const WAIT_TIMEOUT_MS = 180_000;
const WRITERS = 16;
// The daemon keeps 120,000 records; near its bound a peer that has its share already is refused.
const MOST_RECORDS = 115_000;

/** Sizes of the loads; the defaults are those that the daemon has to bear. */
export interface LoadSizes {
  readonly ownKeys: number;
  readonly peers: number;
  readonly recordsPerPeer: number;
  readonly transfers: number;
  /** How many different blobs of its own the daemon serves; what it relays is never asked for twice. */
  readonly blobs: number;
  readonly blobBytes: number;
}

export const FULL_LOADS: LoadSizes = {
  ownKeys: 5_000,
  peers: 20,
  recordsPerPeer: 5_000,
  transfers: 64,
  blobs: 8,
  blobBytes: 64 * 1024 * 1024,
};

/** What one load took. Peaks are of samples every 10 ms, except `peakGroup`, which the kernel kept since the start. */
export interface LoadReport {
  readonly load: string;
  readonly durationMs: number;
  readonly peakAnonymous: number;
  /** Anonymous and kernel memory together: what cannot be dropped. */
  readonly peakWithoutPageCache: number;
  /** Buffers of TCP, which control groups of version 2 count in and those of version 1 do not. */
  readonly peakSockets: number;
  readonly peakGroup: number;
  readonly oomKills: number;
  readonly restarts: number;
  /** Transfers that were refused or cut and had to be repeated. */
  readonly turnedAway: number;
}

export interface MemoryLoads extends AsyncDisposable {
  /** The daemon as it is after its start. */
  idle(): Promise<LoadReport>;
  ownKeys(): Promise<LoadReport>;
  records(): Promise<LoadReport>;
  serves(): Promise<LoadReport>;
  relays(): Promise<LoadReport>;
  /** A daemon that has just started: its own content, peers that announce, and all transfers in both directions. */
  together(): Promise<LoadReport>;
  /** The same with twice as many peers, which announce more than is kept. */
  overfull(): Promise<LoadReport>;
  /**
   * Restarts the daemon with all content in place and one neighbour: milliseconds until it listens, and until all is
   * announced.
   */
  start(): Promise<{ readonly listeningMs: number; readonly advertisedMs: number }>;
}

/**
 * Prepares content on both nodes and addresses for the peers. The rig must have a daemon that is ready, a
 * bootstrapper and a neighbour.
 */
export async function prepareMemoryLoads(
  rig: SystemdRig,
  sizes: LoadSizes,
  { signal }: { readonly signal: AbortSignal },
): Promise<MemoryLoads> {
  const { machine } = rig;
  const peerAddresses = await addPeerAddresses(rig, sizes.peers * 2);
  using driver = createContainerdDriver(rig.containerdSocket());
  const running = new AsyncDisposableStack();
  let turnedAway = 0;
  const served: Digest[] = [];
  const relayed: Digest[] = [];
  const bytes = randomBytes(sizes.blobBytes);
  const nextBlob = (): Buffer => {
    bytes.writeUInt32LE(served.length + relayed.length);
    return bytes;
  };
  while (served.length < sizes.blobs) served.push(await driver.addContent(nextBlob(), { origin: ORIGIN }));
  while (relayed.length < sizes.transfers) relayed.push(await rig.addNeighbourContent(nextBlob(), ORIGIN));

  /** A metric of the daemon; waits while the daemon does not tell it. */
  async function metric(name: string): Promise<number> {
    const line = new RegExp(`^${name} ([0-9.e+]+)$`, "m");
    let value: string | undefined;
    await until(name, async () => {
      value = line.exec(await rig.metrics().catch(() => ""))?.[1];
      return value !== undefined;
    });
    return Number(value);
  }

  async function until(what: string, reached: () => Promise<boolean>): Promise<void> {
    const deadline = performance.now() + WAIT_TIMEOUT_MS;
    while (!(await reached())) {
      if (performance.now() > deadline)
        throw new Error(
          `${what}: not within ${WAIT_TIMEOUT_MS} ms:\n${await machine.journal(SPEGEL_UNIT_NAME)}`,
        );
      await sleep(POLL_INTERVAL_MS, { signal });
    }
  }

  /** The highest use of memory while `action` runs. */
  async function measure(load: string, action: () => Promise<void>): Promise<LoadReport> {
    let peakAnonymous = 0;
    let peakWithoutPageCache = 0;
    let peakSockets = 0;
    await machine.countSockets(SPEGEL_UNIT_NAME);
    let last = await machine.memory(SPEGEL_UNIT_NAME);
    turnedAway = 0;
    const stopped = new AbortController();
    const sampling = (async () => {
      while (!stopped.signal.aborted) {
        last = (await machine.memory(SPEGEL_UNIT_NAME)) ?? last;
        if (last !== undefined) {
          peakAnonymous = Math.max(peakAnonymous, last.anonymous);
          peakWithoutPageCache = Math.max(peakWithoutPageCache, last.current - last.file);
          peakSockets = Math.max(peakSockets, last.sockets);
        }
        await sleep(SAMPLE_INTERVAL_MS, { signal: stopped.signal }).catch(() => {});
      }
    })();
    const started = performance.now();
    try {
      await action();
    } finally {
      stopped.abort();
      await sampling;
    }
    const { NRestarts } = await machine.unit(SPEGEL_UNIT_NAME);
    return {
      load,
      durationMs: performance.now() - started,
      peakAnonymous,
      peakWithoutPageCache,
      peakSockets,
      peakGroup: last?.peak ?? 0,
      oomKills: last?.oomKills ?? 0,
      restarts: NRestarts,
      turnedAway,
    };
  }

  async function startPeers(addresses: readonly string[]): Promise<RunningProcess> {
    const before = await metric("spegel_swarm_provider_records");
    const peers = running.use(
      await startProcess({
        name: "peers",
        command: process.execPath,
        args: [
          "--disable-warning=ExperimentalWarning",
          PEERS_PROGRAM,
          `/ip4/${rig.address}/tcp/${ROUTER_PORT}/p2p/${await peerIdOf(rig)}`,
          String(sizes.recordsPerPeer),
          ...addresses.map((address) => `${address}:${ROUTER_PORT}`),
        ],
        ready: { kind: "line", pattern: /^announced$/ },
        readyTimeoutMs: WAIT_TIMEOUT_MS,
        signal,
      }),
    );
    const wanted = Math.min(before + addresses.length * sizes.recordsPerPeer, MOST_RECORDS);
    await until("records", async () => (await metric("spegel_swarm_provider_records")) >= wanted);
    return peers;
  }

  const pathOf = (digest: Digest): string => `/v2/${REPOSITORY}/blobs/${digest}?ns=${UPSTREAM}`;
  const transfersOf = (digests: readonly Digest[], headers: Readonly<Record<string, string>>): Transfer[] =>
    Array.from({ length: sizes.transfers }, (_, index) => ({
      host: rig.address,
      port: REGISTRY_PORT,
      path: pathOf(digests[index % digests.length] as Digest),
      headers,
    }));
  const serves = transfersOf(served, { "X-Spegel-Mirrored": "true" });
  const relays = transfersOf(relayed, {});

  /** Runs transfers at once. One that is turned away or cut is asked for again, as containerd does elsewhere. */
  async function transfer(transfers: readonly Transfer[]): Promise<void> {
    let left = transfers;
    await until("transfers", async () => {
      const ends = await Promise.allSettled(left.map((each) => drainBody(each, { signal })));
      left = left.filter((_, index) => ends[index]?.status === "rejected");
      turnedAway += left.length;
      return left.length === 0;
    });
  }

  async function untilFindable(): Promise<void> {
    for (const digest of relayed) {
      await until(`${digest} from the neighbour`, async () => (await rig.headStatus(pathOf(digest))) === 200);
    }
  }

  let lastPeers: RunningProcess | undefined;

  async function everything(load: string, addresses: readonly string[]): Promise<LoadReport> {
    await lastPeers?.stop();
    // A daemon that remembers what it has relayed would take the second time for a sign of wrong bytes.
    await machine.demand("systemctl", "restart", SPEGEL_UNIT_NAME);
    await rig.untilReady();
    return measure(load, async () => {
      await untilFindable();
      const announcing = startPeers(addresses);
      await Promise.all([announcing, transfer(serves), transfer(relays)]);
      lastPeers = await announcing;
    });
  }

  return {
    idle: () => measure("idle, with one neighbour", () => sleep(2_000, { signal })),
    ownKeys: () =>
      measure(`${sizes.ownKeys} contents of its own`, async () => {
        using filling = createContainerdDriver(rig.containerdSocket());
        const contents = Array.from({ length: sizes.ownKeys }, (_, index) => Buffer.from(`content ${index}`));
        const write = async (): Promise<void> => {
          for (let next = contents.pop(); next !== undefined; next = contents.pop()) {
            await filling.addContent(next, { origin: ORIGIN });
          }
        };
        await Promise.all(Array.from({ length: WRITERS }, write));
        // containerd 1.x sends no event for content: an image makes the daemon list everything.
        await filling.setImage(`${UPSTREAM}/${REPOSITORY}:1`, sha256Digest(Buffer.from("content 0")));
        await until("own keys", async () => (await metric("spegel_swarm_own_keys")) >= sizes.ownKeys);
      }),
    records: () =>
      measure(`${sizes.peers} peers with ${sizes.recordsPerPeer} records each`, async () => {
        lastPeers = await startPeers(peerAddresses.slice(0, sizes.peers));
      }),
    serves: () => measure(`${describeTransfers(sizes)} served`, () => transfer(serves)),
    relays: () =>
      measure(`${describeTransfers(sizes)} relayed`, async () => {
        await untilFindable();
        await transfer(relays);
      }),
    together: () => everything("all of these at once, after a restart", peerAddresses.slice(0, sizes.peers)),
    overfull: () => everything("the same with twice the peers, more records than are kept", peerAddresses),
    async start() {
      await lastPeers?.stop();
      const kept = await metric("spegel_swarm_own_keys");
      await machine.demand("systemctl", "stop", SPEGEL_UNIT_NAME);
      // As after a boot: the executable has to be read from the disk.
      await execute("dd", [
        `of=${join(machine.root, SPEGEL_BINARY_PATH)}`,
        "oflag=nocache",
        "conv=notrunc,fdatasync",
        "count=0",
      ]);
      const started = performance.now();
      await machine.demand("systemctl", "start", SPEGEL_UNIT_NAME);
      while ((await rig.status("/livez")) !== 200) await sleep(1, { signal });
      const listeningMs = performance.now() - started;
      await until("own keys", async () => (await metric("spegel_swarm_own_keys")) >= kept);
      await rig.untilReady();
      return { listeningMs, advertisedMs: performance.now() - started };
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

function describeTransfers({ transfers, blobBytes }: LoadSizes): string {
  return `${transfers} x ${blobBytes / 1024 / 1024} MiB`;
}

/**
 * Addresses at the upstream for peers that reach the machine but not each other: each of them tells the machine
 * about its keys, and spends no time on telling the others.
 */
async function addPeerAddresses(rig: SystemdRig, count: number): Promise<readonly string[]> {
  const prefix = rig.address.slice(0, rig.address.lastIndexOf(".") + 1);
  const addresses = Array.from({ length: count }, (_, index) => `${prefix}${FIRST_PEER_HOST + index}`);
  for (const address of addresses) await execute("ip", ["addr", "add", `${address}/24`, "dev", "eth0"]);
  const range = `${addresses[0]}-${addresses.at(-1)}`;
  await execute("nft", [
    `table inet apart { chain output { type filter hook output priority 0; oif lo ip daddr ${range} tcp dport ${ROUTER_PORT} reject with tcp reset; }; }`,
  ]);
  return addresses;
}

/** The identity of the running daemon, as it logs it when it serves. */
async function peerIdOf(rig: SystemdRig): Promise<string> {
  const text = await rig.machine.demand(
    "journalctl",
    "--output=cat",
    "--no-pager",
    `--unit=${SPEGEL_UNIT_NAME}`,
  );
  const ids = [...text.matchAll(/"peer":"([1-9A-HJ-NP-Za-km-z]+)","msg":"Serving\."/g)];
  const last = ids.at(-1)?.[1];
  if (last === undefined) throw new Error("the daemon has not told its identity");
  return last;
}
