// SPDX-License-Identifier: Apache-2.0
/**
 * `make demo-nodes`: three nodes with a real containerd each, of three generations, in network namespaces. node-1
 * pulls two images through CRI from their registry, the registry goes away, node-2 and node-3 pull them.
 *
 * Needs root. Exits with 0 only when every digest is right and every byte came from where it should.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorMessage, hasCode } from "#errors";
import { prepareTier, TIERS } from "../../hack/tiers.ts";
import { readImageLayout } from "../kit/image-maker/index.ts";
import { findContainerdBinaries, openRig, type RigImage, spreadGenerations } from "../kit/node-rig/index.ts";
import { accountNode } from "./account-nodes.ts";
import type { AccountRow } from "./account-sources.ts";
import type { DemoImage } from "./demo-image.ts";
import { demand } from "./errors.ts";
import { formatReport } from "./format-report.ts";
import { prepareImages } from "./prepare-images.ts";
import { createProgress, type Progress } from "./progress.ts";
import { hostPlatform } from "./pull-images.ts";

const NODES = 3;
const EXIT_FAILED = 1;
const EXIT_INTERRUPTED = 130;

async function run(progress: Progress, signal: AbortSignal): Promise<readonly AccountRow[]> {
  progress.step("Look for what it needs: root, Debian packages, three generations of containerd");
  const tier = TIERS.find((each) => each.name === "nodes");
  const reason = tier === undefined ? "there is no tier nodes" : prepareTier(tier);
  demand(reason === undefined, `it cannot run here: ${reason}`);
  const { found, missing } = await findContainerdBinaries({ signal });
  if (missing !== undefined) progress.note(missing);
  demand(found.length > 0, "there is no containerd");

  await using running = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "spegel-demo-nodes-"));
  running.defer(() => rm(directory, { recursive: true, force: true }));
  progress.step("Prepare the images: spegel's node image, and a large one of four layers");
  const prepared = await prepareImages(directory, { progress, signal });
  const images = [
    await forThisPlatform(prepared.spegel, signal),
    await forThisPlatform(prepared.large, signal),
  ];

  progress.step("Start the registry, three containerds and a mirror beside each");
  const containerds = spreadGenerations(found, NODES);
  const rig = running.use(await openRig({ containerds, program: ["dist/spegel"], signal }));
  const nodes = rig.containerds.map((containerd, index) => ({
    name: `node-${index + 1} (${containerd.version})`,
    containerd,
    spegel: rig.spegels[index] ?? rigHasNoMirror(index),
  }));
  progress.note(nodes.map((node) => `${node.name} ${node.containerd.namespace.address}`).join(", "));
  const pushed: RigImage[] = [];
  for (const image of images) pushed.push(await rig.addLayout(image.repository, image.tag, image.layout));

  const pull = async (node: (typeof nodes)[number]): Promise<void> => {
    for (const image of pushed) {
      const startedMs = performance.now();
      await node.containerd.cri.pull(image.name);
      progress.note(
        `${node.name} has ${image.name} after ${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
      );
    }
  };
  const [first, ...others] = nodes;
  demand(first !== undefined, "the rig has no node");
  progress.step(`${first.name} pulls both images through CRI, from the registry`);
  await pull(first);
  for (const image of pushed) await rig.untilShared(image, 0);

  progress.step("The registry goes away: it refuses every connection");
  await rig.network.setUpstreamAvailable(false);
  for (const node of others) {
    progress.step(`${node.name} pulls both images through CRI`);
    await pull(node);
  }

  progress.step("Check every digest, and where every byte came from");
  const rows: AccountRow[] = [];
  for (const node of nodes) {
    for (const image of images) {
      const expected = node === first ? "upstream" : "peer";
      rows.push(...(await accountNode(node, image, { expected, nodes, upstream: rig.registry.requests() })));
    }
  }
  progress.step("Done: every digest is right, and every byte came from where it should");
  process.stdout.write(`\n${formatReport(rows)}\n\n`);
  progress.step("Stop everything and remove namespaces and folders");
  return rows;
}

/** Leaves out what a node of this platform does not pull. */
async function forThisPlatform(image: DemoImage, signal: AbortSignal): Promise<DemoImage> {
  const layout = await readImageLayout(image.layout.directory, { platform: hostPlatform(), signal });
  return { ...image, layout };
}

function rigHasNoMirror(index: number): never {
  throw new Error(`node ${index} has no mirror`);
}

if (process.getuid?.() !== 0) {
  process.stderr.write(
    "demo-nodes: it needs root, for network namespaces and containerd: sudo make demo-nodes\n",
  );
  process.exit(EXIT_FAILED);
}
const stop = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(name, () => {
    stop.abort(new Error(`interrupted by ${name}`));
    process.once(name, () => process.exit(EXIT_INTERRUPTED)); // the guards of the children end them
  });
}
try {
  await run(createProgress(process.stdout), stop.signal);
} catch (error) {
  const reason = hasCode(error, "DEMO_CHECK_FAILED") ? "the result is wrong" : "a step failed";
  const interrupted = stop.signal.aborted;
  process.stderr.write(
    `\ndemo-nodes: ${interrupted ? errorMessage(stop.signal.reason) : `${reason}: ${errorMessage(error)}`}\n`,
  );
  process.exitCode = interrupted ? EXIT_INTERRUPTED : EXIT_FAILED;
}
