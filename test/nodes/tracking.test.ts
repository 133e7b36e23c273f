// SPDX-License-Identifier: Apache-2.0
/** What the swarm is told equals what containerd holds, whatever happens to containerd. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Digest } from "#oci";
import {
  type ContainerdBinary,
  type ContainerdNode,
  findContainerdBinaries,
  type Rig,
  type RigImage,
  type SpegelNode,
} from "../kit/node-rig/index.ts";
import { MIB, openNodes, until } from "./testing.ts";

const GENERATIONS = 3;
// Two more nodes, on which one generation follows the other.
const DISCARDING = 3;
const REPLACED = 4;
const signal = AbortSignal.timeout(280_000);

describe("what other nodes find", () => {
  let rig: Rig;
  let generations: readonly ContainerdBinary[];
  before(async () => {
    generations = (await findContainerdBinaries({ signal })).found;
    rig = await openNodes(GENERATIONS + 2, { discardUnpackedLayers: (node) => node === DISCARDING, signal });
  });
  after(() => rig?.[Symbol.asyncDispose]());

  const nodeOf = (index: number): { readonly containerd: ContainerdNode; readonly spegel: SpegelNode } => {
    const [containerd, spegel] = [rig.containerds[index], rig.spegels[index]];
    if (containerd === undefined || spegel === undefined) throw new Error(`no node ${index}`);
    return { containerd, spegel };
  };
  const neighbour = (index: number): number => (index + 1) % GENERATIONS;
  const newImage = (name: string, more: object = {}): Promise<RigImage> =>
    rig.addImage(`tracked/${name}`, "1", { seed: name, layerSizesBytes: [2 * MIB, MIB], ...more });
  const layersOf = (image: RigImage): Digest[] =>
    image.layout.objects.filter((object) => object.kind === "layer").map((object) => object.digest);

  /** The digest that a node's mirror gives for a tag. */
  async function resolve(index: number, image: RigImage): Promise<string | null> {
    const { address } = nodeOf(index).containerd.namespace;
    const url = `http://${address}:5000/v2/${image.repository}/manifests/${image.tag}?ns=${image.registry}`;
    return (await fetch(url, { method: "HEAD", signal })).headers.get("docker-content-digest");
  }

  const untilFound = async (by: number, image: RigImage, paths: readonly string[]): Promise<void> => {
    for (const path of paths) await until(async () => (await rig.ask(by, image, path)) === 200);
  };
  const untilGone = async (by: number, image: RigImage, paths: readonly string[]): Promise<void> => {
    for (const path of paths) await until(async () => (await rig.ask(by, image, path)) === 404);
  };

  it("follows a tag that moves to another image", async () => {
    for (let holder = 0; holder < GENERATIONS; holder++) {
      const { containerd, spegel } = nodeOf(holder);
      const old = await newImage(`moved-${holder}`);
      await containerd.cri.pull(old.name);
      await until(async () => (await resolve(neighbour(holder), old)) === old.layout.root.digest);
      const current = await rig.addImage(old.repository, old.tag, {
        seed: `moved-${holder} to`,
        layerSizesBytes: [MIB],
      });
      // A node that has the tag resolves it itself; without its mirror it hears the registry's word.
      await spegel.setMirror(false);
      await containerd.cri.pull(current.name);
      await spegel.setMirror(true);
      await until(async () => (await resolve(neighbour(holder), old)) === current.layout.root.digest);
    }
  });

  it("vanishes with its image, and comes back with it", async () => {
    for (let holder = 0; holder < GENERATIONS; holder++) {
      const { containerd } = nodeOf(holder);
      const image = await newImage(`removed-${holder}`);
      const paths = [`manifests/${image.tag}`, ...layersOf(image).map((digest) => `blobs/${digest}`)];
      await containerd.cri.pull(image.name);
      await untilFound(neighbour(holder), image, paths);
      await containerd.cri.remove(image.name);
      await untilGone(neighbour(holder), image, paths);
      await containerd.cri.pull(image.name);
      await untilFound(neighbour(holder), image, paths);
    }
  });

  it("is only what is there: no other platforms, no layer that was deleted, nothing of unnamed images", async () => {
    const platforms = [
      { os: "linux", architecture: "amd64" },
      { os: "linux", architecture: "arm64" },
    ];
    for (let holder = 0; holder < GENERATIONS; holder++) {
      const { containerd } = nodeOf(holder);
      const image = await newImage(`partial-${holder}`, { platforms });
      await containerd.cri.pull(image.name);
      await rig.untilShared(image, holder);
      const manifests = image.layout.objects.filter((object) => object.kind === "manifest");
      const answers = await Promise.all(
        manifests.map((object) => rig.ask(neighbour(holder), image, `manifests/${object.digest}`)),
      );
      assert.deepEqual(
        answers.toSorted((left, right) => left - right),
        [200, 404],
      );

      const ctr = (...words: string[]): Promise<string> => containerd.ctr("--namespace", "k8s.io", ...words);
      await ctr("images", "tag", image.name, "no-registry-and-no-slash");
      const [first = "", ...others] = (await ctr("content", "ls", "--quiet"))
        .split("\n")
        .filter((digest) => layersOf(image).includes(digest as Digest));
      await ctr("content", "rm", first);
      await untilGone(neighbour(holder), image, [`blobs/${first}`]);
      await untilFound(
        neighbour(holder),
        image,
        others.map((digest) => `blobs/${digest}`),
      );
    }
  });

  it("is also content of the namespace in which node agents pull", async () => {
    for (let holder = 0; holder < GENERATIONS; holder++) {
      const { containerd } = nodeOf(holder);
      const image = await newImage(`default-${holder}`);
      await containerd.ctr(
        ...["--namespace", "default", "content", "fetch"],
        ...["--hosts-dir", containerd.certsDirectory, image.name],
      );
      await rig.untilShared(image, holder);
      await untilFound(
        neighbour(holder),
        image,
        layersOf(image).map((digest) => `blobs/${digest}`),
      );
    }
  });

  /** Puts another containerd in the place of a node's, on the same root and socket. */
  async function replace(index: number, binary: ContainerdBinary): Promise<void> {
    const { containerd, spegel } = nodeOf(index);
    if (containerd.version === binary.version) return;
    await containerd.stop();
    await until(async () => (await spegel.ready()) === 500);
    await containerd.start(binary);
    await until(async () => (await spegel.ready()) === 200);
  }

  it("is no layer of a node that discards them; it says so, and the image is pulled all the same", async () => {
    const { containerd, spegel } = nodeOf(DISCARDING);
    const warnings = (): number =>
      spegel.process.output.lines.filter(({ text }) => text.includes("discard_unpacked_layers = false"))
        .length;
    for (const [index, binary] of generations.entries()) {
      await replace(DISCARDING, binary);
      const image = await newImage(`discarded-${index}`);
      await containerd.cri.pull(image.name);
      await untilFound(0, image, [`manifests/${image.layout.root.digest}`]);
      await untilGone(
        0,
        image,
        layersOf(image).map((digest) => `blobs/${digest}`),
      );
      await until(async () => (await spegel.metric("spegel_images_without_layers")) === index + 1);
      // Once for each start of containerd.
      assert.equal(warnings(), index + 1);
      await nodeOf(0).containerd.cri.pull(image.name);
      await rig.untilShared(image, 0);
    }
    assert.equal(await nodeOf(0).spegel.metric("spegel_images_without_layers"), 0);
  });

  it("is what another version of containerd holds that takes the place of the first, under the same daemon", async () => {
    const { containerd, spegel } = nodeOf(REPLACED);
    const { pid } = spegel.process;
    const held: RigImage[] = [];
    for (const [index, binary] of generations.entries()) {
      await replace(REPLACED, binary);
      assert.equal(await spegel.metric("spegel_store_connected"), 1);
      const image = await newImage(`replaced-${index}`);
      await containerd.cri.pull(image.name);
      held.push(image);
      // What its forerunners pulled is there as well.
      for (const each of held) await rig.untilShared(each, REPLACED);
    }
    await rig.network.setUpstreamAvailable(false);
    try {
      for (const image of held) await nodeOf(0).containerd.cri.pull(image.name);
    } finally {
      await rig.network.setUpstreamAvailable(true);
    }
    const arrived = await newImage("replaced-arrived");
    await nodeOf(0).containerd.cri.pull(arrived.name);
    await rig.untilShared(arrived, 0);
    await rig.network.setUpstreamAvailable(false);
    try {
      await containerd.cri.pull(arrived.name);
    } finally {
      await rig.network.setUpstreamAvailable(true);
    }
    assert.equal(spegel.process.pid, pid);
    assert.ok(!spegel.process.output.lines.some(({ text }) => text.includes('"level":"fatal"')));
  });

  for (const [trouble, strike, mend] of [
    [
      "is restarted",
      (containerd: ContainerdNode) => containerd.stop(),
      (containerd: ContainerdNode) => containerd.start(),
    ],
    [
      "is killed",
      (containerd: ContainerdNode) => containerd.stop("SIGKILL"),
      (containerd: ContainerdNode) => containerd.start(),
    ],
    [
      "hangs",
      async (containerd: ContainerdNode) => containerd.process.kill("SIGSTOP"),
      async (containerd: ContainerdNode) => containerd.process.kill("SIGCONT"),
    ],
    [
      "loses everything",
      async (containerd: ContainerdNode) => {
        await containerd.stop();
        await containerd.wipe();
      },
      (containerd: ContainerdNode) => containerd.start(),
    ],
  ] as const) {
    it(`is right again after containerd ${trouble}: the daemon stays, says so, and catches up`, async () => {
      for (let holder = 0; holder < GENERATIONS; holder++) {
        const { containerd, spegel } = nodeOf(holder);
        const { pid } = spegel.process;
        const seed = `${trouble.replaceAll(" ", "-")}-${holder}`;
        const before = await newImage(`before-${seed}`);
        await containerd.cri.pull(before.name);
        await rig.untilShared(before, holder);
        assert.equal(await spegel.metric("spegel_store_connected"), 1);

        await strike(containerd);
        await until(async () => (await spegel.ready()) === 500);
        assert.equal(await spegel.metric("spegel_store_connected"), 0);
        await mend(containerd);
        await until(async () => (await spegel.ready()) === 200);
        assert.equal(await spegel.metric("spegel_store_connected"), 1);

        if (trouble === "loses everything")
          await untilGone(neighbour(holder), before, [`manifests/${before.tag}`]);
        else await rig.untilShared(before, holder);
        const later = await newImage(`after-${seed}`);
        await containerd.cri.pull(later.name);
        await rig.untilShared(later, holder);
        assert.equal(spegel.process.pid, pid);
        assert.ok(!spegel.process.output.lines.some(({ text }) => text.includes('"level":"fatal"')));
      }
    });
  }
});
