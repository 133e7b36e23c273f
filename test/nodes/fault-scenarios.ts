// SPDX-License-Identifier: Apache-2.0
/** What may go wrong while a node pulls a large layer, how it is brought about, and what is counted then. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { appendFile, open, readdir, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, digestHex } from "#oci";
import { type ContainerdNode, type Lie, type Rig, type RigImage, startProxy } from "../kit/node-rig/index.ts";
import { MIB, until } from "./testing.ts";

/** Everything a fault may touch. Nodes are numbers, as in the rig. */
export interface FaultContext {
  readonly rig: Rig;
  readonly image: RigImage;
  readonly layer: Digest;
  readonly puller: number;
  /** The node that is sending the layer to the puller. */
  readonly serving: number;
  readonly signal: AbortSignal;
}

export interface FaultScenario {
  readonly name: string;
  /** How many nodes hold the image. */
  readonly holders: 1 | 2;
  /** Before the pull begins. Disposing puts it right again. */
  prepare?(context: Omit<FaultContext, "serving">): Promise<AsyncDisposable>;
  /** When the puller has a third of the layer. Disposing puts it right again. */
  strike?(context: FaultContext): Promise<AsyncDisposable>;
  /** The call of PullImage under which it happens fails; the next one must not. */
  readonly losesFirstPull?: boolean;
  /** What the upstream may send of the layer: nothing, or at most what the puller had not received. */
  readonly upstream: "nothing" | "rest" | "whole";
}

export interface FaultResult {
  readonly scenario: FaultScenario;
  /** Calls of PullImage until one succeeded. */
  readonly calls: number;
  /** What the first call failed with. */
  readonly error?: string;
  /** Time in calls of PullImage. */
  readonly seconds: number;
  /** Bytes of the layer that the puller had when it happened. */
  readonly receivedBytes: number;
  readonly layerBytes: number;
  readonly layerDigest: Digest;
  /** Bytes of the layer that the upstream sent to the puller. */
  readonly upstreamBytes: number;
  /** Digest of the layer's file on the puller afterwards. */
  readonly finalDigest: string;
}

export const LINK_BITS_PER_SECOND = 400e6;
const SLOW_BITS_PER_SECOND = 100 * 1024 * 8;
const MAX_CALLS = 3;

const nothing: AsyncDisposable = { async [Symbol.asyncDispose]() {} };
const undo = (action: () => Promise<unknown>): AsyncDisposable => ({
  async [Symbol.asyncDispose]() {
    await action();
  },
});

const peerKilled = async ({ rig, serving }: FaultContext): Promise<AsyncDisposable> => {
  const spegel = rig.spegels[serving];
  spegel?.process.kill("SIGKILL");
  return undo(async () => spegel?.start());
};

const peerFrozen = async ({
  rig,
  serving,
}: Pick<FaultContext, "rig" | "serving">): Promise<AsyncDisposable> => {
  const spegel = rig.spegels[serving];
  spegel?.process.kill("SIGSTOP");
  return undo(async () => spegel?.process.kill("SIGCONT"));
};

const peerCutOff = async ({ rig, serving }: FaultContext): Promise<AsyncDisposable> => {
  const node = nodeOf(rig, serving).namespace;
  await rig.network.setNodeConnected(node, false);
  return undo(() => rig.network.setNodeConnected(node, true));
};

const peerSlow = async ({ rig, serving }: FaultContext): Promise<AsyncDisposable> => {
  const node = nodeOf(rig, serving).namespace;
  await rig.network.setEgressRate(node, SLOW_BITS_PER_SECOND);
  return undo(() => rig.network.setEgressRate(node, LINK_BITS_PER_SECOND));
};

const wrongBit = async ({ rig, serving, layer }: FaultContext): Promise<AsyncDisposable> => {
  await using file = await open(blobPath(nodeOf(rig, serving), layer), "r+");
  const { size } = await file.stat();
  const byte = Buffer.alloc(1);
  const position = Math.floor(size * 0.9);
  await file.read(byte, 0, 1, position);
  await file.write(Buffer.from([(byte[0] as number) ^ 1]), 0, 1, position);
  return nothing;
};

const truncated = async ({ rig, serving, layer }: FaultContext): Promise<AsyncDisposable> => {
  const path = blobPath(nodeOf(rig, serving), layer);
  await truncate(path, Math.floor((await stat(path)).size * 0.7));
  return nothing;
};

const extended = async ({ rig, serving, layer }: FaultContext): Promise<AsyncDisposable> => {
  await appendFile(blobPath(nodeOf(rig, serving), layer), Buffer.alloc(1000, "x"));
  return nothing;
};

const lying =
  (lie: Lie) =>
  async (context: Omit<FaultContext, "serving">): Promise<AsyncDisposable> => {
    const holder = holdersFor(context.puller)[0];
    const node = nodeOf(context.rig, holder).namespace;
    return startProxy(node, { port: 5006, lie, intercept: true, signal: context.signal });
  };

const localKilled = async ({ rig, puller }: FaultContext): Promise<AsyncDisposable> => {
  const spegel = rig.spegels[puller];
  spegel?.process.kill("SIGKILL");
  return undo(async () => spegel?.start());
};

const localRestarted = async ({ rig, puller }: FaultContext): Promise<AsyncDisposable> => {
  const spegel = rig.spegels[puller];
  await spegel?.process.stop();
  await spegel?.start();
  return nothing;
};

const localFrozen =
  (watchdogMs: number) =>
  async ({ rig, puller }: FaultContext): Promise<AsyncDisposable> => {
    const spegel = rig.spegels[puller];
    spegel?.process.kill("SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, watchdogMs));
    spegel?.process.kill("SIGKILL");
    await spegel?.start();
    return nothing;
  };

const containerdRestarted = async ({ rig, puller }: FaultContext): Promise<AsyncDisposable> => {
  await rig.containerds[puller]?.stop();
  await rig.containerds[puller]?.start();
  return nothing;
};

/** @param options.watchdogMs how long a frozen local daemon stays frozen until it is killed and started again */
export function faultScenarios(options: { readonly watchdogMs: number }): readonly FaultScenario[] {
  const withAndWithoutSecond = (
    name: string,
    strike: NonNullable<FaultScenario["strike"]>,
    more: { readonly losesFirstPull?: boolean; readonly upstream?: FaultScenario["upstream"] } = {},
  ): FaultScenario[] => [
    { name, holders: 1, strike, upstream: "rest", ...more },
    { name, holders: 2, strike, ...more, upstream: "nothing" },
  ];
  return [
    ...withAndWithoutSecond("peer killed", peerKilled),
    ...withAndWithoutSecond("peer frozen", peerFrozen),
    {
      name: "peer frozen before the pull",
      holders: 1,
      prepare: ({ rig, puller }) => peerFrozen({ rig, serving: holdersFor(puller)[0] }),
      upstream: "whole",
    },
    ...withAndWithoutSecond("peer cut off", peerCutOff),
    ...withAndWithoutSecond("peer slowed to 100 KiB/s", peerSlow),
    ...withAndWithoutSecond("peer's file gets a wrong bit", wrongBit, {
      losesFirstPull: true,
      upstream: "whole",
    }),
    ...withAndWithoutSecond("peer's file is truncated", truncated),
    { name: "peer's file grows", holders: 1, strike: extended, upstream: "nothing" },
    {
      name: "foreign peer sends a wrong bit",
      holders: 1,
      prepare: lying("flip"),
      losesFirstPull: true,
      upstream: "whole",
    },
    {
      name: "foreign peer says and sends too few",
      holders: 1,
      prepare: lying("few"),
      losesFirstPull: true,
      upstream: "whole",
    },
    {
      name: "foreign peer says and sends too many",
      holders: 1,
      prepare: lying("many"),
      losesFirstPull: true,
      upstream: "whole",
    },
    { name: "local daemon killed", holders: 1, strike: localKilled, upstream: "rest" },
    { name: "local daemon restarted", holders: 1, strike: localRestarted, upstream: "rest" },
    {
      name: "local daemon frozen, killed by the watchdog",
      holders: 1,
      strike: localFrozen(options.watchdogMs),
      upstream: "rest",
    },
    {
      name: "containerd restarted",
      holders: 1,
      strike: containerdRestarted,
      losesFirstPull: true,
      upstream: "rest",
    },
  ];
}

/** The nodes of a rig of three that hold the image; the second one only when there are two. */
function holdersFor(puller: number): readonly [number, number] {
  return [(puller + 1) % 3, (puller + 2) % 3];
}

/** Limits all links of a rig to the same rate. */
export async function shapeLinks(rig: Rig): Promise<void> {
  for (const namespace of [rig.network.upstream, ...rig.network.nodes])
    await rig.network.setEgressRate(namespace, LINK_BITS_PER_SECOND);
}

/** Plays one scenario in a rig of three nodes, with an image of its own that has one layer of that size. */
export async function playFault(
  rig: Rig,
  scenario: FaultScenario,
  options: {
    readonly seed: string;
    readonly layerMib: number;
    readonly puller: number;
    readonly signal: AbortSignal;
  },
): Promise<FaultResult> {
  const { puller, signal } = options;
  const image = await rig.addImage(`faults/${options.seed}`, "1", {
    seed: options.seed,
    layerSizesBytes: [options.layerMib * MIB],
  });
  const layer = image.layout.objects.find((object) => object.kind === "layer");
  if (layer === undefined) throw new Error("the image has no layer");
  const holders = holdersFor(puller).slice(0, scenario.holders);
  if (scenario.holders === 2) await forgetTroubles(rig, puller);
  for (const holder of holders) await nodeOf(rig, holder).cri.pull(image.name);
  for (const holder of holders) await rig.untilShared(image, holder);

  const node = nodeOf(rig, puller);
  const context = { rig, image, layer: layer.digest, puller, signal };
  let receivedBytes = 0;
  let seconds = 0;
  let calls = 0;
  let firstError: string | undefined;
  {
    await using _prepared = (await scenario.prepare?.(context)) ?? nothing;
    let struck: AsyncDisposable = nothing;
    const striking = new AbortController();
    const strike = async (): Promise<void> => {
      if (scenario.strike === undefined) return;
      await until(async () => {
        receivedBytes = await ingestBytes(node);
        return receivedBytes > layer.sizeBytes / 3 || striking.signal.aborted;
      });
      striking.signal.throwIfAborted();
      const serving = await servingNode(rig, holders);
      struck = await scenario.strike({ ...context, serving });
    };
    const strikes = strike().then(
      () => undefined,
      (error: unknown) => error,
    );
    try {
      for (;;) {
        calls++;
        const startedMs = performance.now();
        const error = await node.cri.pull(image.name).then(
          () => undefined,
          (reason: unknown) => reason as Error,
        );
        seconds += (performance.now() - startedMs) / 1000;
        striking.abort();
        const problem = await strikes;
        if (problem !== undefined) throw problem;
        if (error === undefined) break;
        firstError ??= error.message;
        if (calls === MAX_CALLS) throw error;
        // The kubelet waits for 10 s; the ingest of a lost pull is gone after 0.1 s.
        if (!(scenario.name === "containerd restarted"))
          await until(async () => (await ingestBytes(node)) === 0);
      }
    } finally {
      await struck[Symbol.asyncDispose]();
    }
  }
  const upstreamBytes = rig.registry
    .requests()
    .filter((request) => request.method === "GET" && request.client === node.namespace.address)
    .filter((request) => request.path.endsWith(layer.digest))
    .reduce((sum, request) => sum + request.bytes, 0);
  const finalDigest = `sha256:${await hashOf(blobPath(node, layer.digest))}`;
  for (const each of [puller, ...holders]) await nodeOf(rig, each).cri.remove(image.name);
  return {
    scenario,
    calls,
    ...(firstError === undefined ? {} : { error: firstError }),
    seconds,
    receivedBytes,
    layerBytes: layer.sizeBytes,
    layerDigest: layer.digest,
    upstreamBytes,
    finalDigest,
  };
}

/** Starts a node's daemon anew: for ten seconds it leaves out peers that were in trouble in an earlier scenario. */
async function forgetTroubles(rig: Rig, index: number): Promise<void> {
  const spegel = rig.spegels[index];
  await spegel?.process.stop();
  await spegel?.start();
}

export function nodeOf(rig: Rig, index: number): ContainerdNode {
  const node = rig.containerds[index];
  if (node === undefined) throw new Error(`the rig has no node ${index}`);
  return node;
}

function blobPath(node: ContainerdNode, digest: Digest): string {
  return join(node.contentPath, "blobs/sha256", digestHex(digest));
}

/** Size of the largest ingest of a node. */
async function ingestBytes(node: ContainerdNode): Promise<number> {
  const directory = join(node.contentPath, "ingest");
  const names = await readdir(directory).catch(() => []);
  const sizes = await Promise.all(
    names.map((name) =>
      stat(join(directory, name, "data")).then(
        (data) => data.size,
        () => 0,
      ),
    ),
  );
  return Math.max(0, ...sizes);
}

/** The holder that has a request in hand. */
async function servingNode(rig: Rig, holders: readonly number[]): Promise<number> {
  for (const holder of holders) {
    const running = await rig.spegels[holder]?.metric("http_requests_inflight", 'handler="/v2/*"');
    if ((running ?? 0) > 0) return holder;
  }
  throw new Error("no holder is sending anything");
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: MIB })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
