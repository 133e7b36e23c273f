// SPDX-License-Identifier: Apache-2.0
/** Real containerds of all generations pull through the daemon, by CRI, with the upstream gone. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Rig, RigImage } from "../kit/node-rig/index.ts";
import { makeArtifact } from "./artifact.ts";
import { MIB, openNodes, until } from "./testing.ts";

const NODES = 5;
const signal = AbortSignal.timeout(280_000);

describe("five nodes with containerd and the mirror", () => {
  let rig: Rig;
  before(async () => {
    rig = await openNodes(NODES, { signal });
  });
  after(() => rig?.[Symbol.asyncDispose]());

  const fromPeers = async (node: number): Promise<number> =>
    (await rig.spegels[node]?.metric("spegel_sent_bytes_total", 'source="peer"')) ?? 0;

  /** Runs `action` while the upstream refuses every connection, and checks that it was not asked. */
  async function withoutUpstream(action: () => Promise<unknown>): Promise<void> {
    const asked = rig.registry.requests().length;
    await rig.network.setUpstreamAvailable(false);
    try {
      await action();
    } finally {
      await rig.network.setUpstreamAvailable(true);
    }
    assert.equal(rig.registry.requests().length, asked, "a request reached the upstream");
  }

  /** Pulls on one node from upstream, then on the others without it. */
  async function share(image: RigImage, reference = image.name, holder = 0): Promise<void> {
    await rig.containerds[holder]?.cri.pull(reference);
    await rig.untilShared(image, holder);
    await withoutUpstream(async () => {
      for (const [index, node] of rig.containerds.entries()) {
        if (index !== holder) await node.cri.pull(reference);
      }
    });
    const [repository = ""] = image.repository.split("/").slice(-1);
    for (const node of rig.containerds) {
      const names = (await node.cri.images()).flatMap((each) => [...each.repo_tags, ...each.repo_digests]);
      assert.ok(
        names.some((name) => name.includes(repository)),
        names.join(", "),
      );
    }
  }

  it("share an image by tag, every byte of it", async () => {
    const layerSizesBytes = [8 * MIB, 3 * MIB, 1, 20 * MIB];
    const image = await rig.addImage("rig/layers", "1", { seed: "layers", layerSizesBytes });
    const before = await Promise.all(rig.spegels.map((_, node) => fromPeers(node)));
    await share(image);
    const sizeBytes = image.layout.objects.reduce((sum, object) => sum + object.sizeBytes, 0);
    for (let node = 1; node < NODES; node++)
      assert.equal((await fromPeers(node)) - (before[node] ?? 0), sizeBytes, `node ${node}`);
  });

  it("share an image by digest, from a holder of each generation", async () => {
    for (const holder of [0, 1, 2]) {
      const repository = `rig/digest-${holder}`;
      const image = await rig.addImage(repository, "1", { seed: repository, layerSizesBytes: [2 * MIB] });
      await rig.containerds[holder]?.cri.pull(image.name);
      await share(image, `${image.registry}/${repository}@${image.layout.root.digest}`, holder);
    }
  });

  it("share docker.io's images by their short names", async () => {
    const pushed = await rig.addImage("library/short", "1", { seed: "short", layerSizesBytes: [MIB] });
    await share({ ...pushed, registry: "docker.io", name: "docker.io/library/short:1" }, "short:1");
  });

  it("share images of a registry with a port", async () => {
    await using registry = await rig.startUpstream(5443);
    const image = await rig.addImage("rig/port", "1", { seed: "port", layerSizesBytes: [MIB] });
    await registry.push(image.layout, "1", "rig/port", { signal });
    const name = `${image.registry}:5443/rig/port:1`;
    await rig.containerds[3]?.cri.pull(name);
    await rig.untilShared({ ...image, registry: `${image.registry}:5443`, name }, 3);
    await registry[Symbol.asyncDispose]();
    await rig.containerds[4]?.cri.pull(name);
  });

  it("share an index of several platforms, gzip and zstd layers, and Docker's media types", async () => {
    const platforms = [
      { os: "linux", architecture: "amd64" },
      { os: "linux", architecture: "arm64" },
    ];
    for (const [name, more] of Object.entries({
      index: { platforms, compression: "gzip" },
      zstd: { compression: "zstd" },
      docker: { mediaTypes: "docker", compression: "gzip" },
    } as const)) {
      const layerSizesBytes = [MIB, 2 * MIB];
      await share(await rig.addImage(`rig/${name}`, "1", { seed: name, layerSizesBytes, ...more }));
    }
  });

  it("share images of 1 and of 40 layers, and layers with an empty file", async () => {
    for (const [name, layerSizesBytes] of Object.entries({
      one: [MIB],
      forty: Array.from({ length: 40 }, (_, index) => index * 4000),
      empty: [0, 0, 1],
    }))
      await share(await rig.addImage(`rig/${name}`, "1", { seed: name, layerSizesBytes }));
  });

  it("share artifacts, also when their blobs look like JSON or manifests, or begin with a digit", async () => {
    const directory = await mkdtemp(join(tmpdir(), "artifact-"));
    try {
      const artifact = await makeArtifact(directory, { seed: "fetched", signal });
      const image = await rig.addLayout("rig/artifact", "1", artifact);
      const fetch = (node: number): Promise<unknown> | undefined => {
        const there = rig.containerds[node];
        const hosts = ["--hosts-dir", there?.certsDirectory ?? ""];
        return there?.ctr(
          "--namespace",
          "k8s.io",
          "content",
          "fetch",
          "--all-platforms",
          ...hosts,
          image.name,
        );
      };
      await fetch(0);
      await rig.untilShared(image, 0);
      await withoutUpstream(async () => {
        for (const node of [1, 2]) await fetch(node);
      });
      for (const node of [1, 2]) {
        const listed = await rig.containerds[node]?.ctr("--namespace", "k8s.io", "content", "ls", "--quiet");
        for (const { digest } of artifact.objects) assert.ok(listed?.includes(digest), digest);
      }
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("share artifacts by CRI, as volumes are pulled from images, where containerd takes artifacts", async () => {
    const directory = await mkdtemp(join(tmpdir(), "artifact-"));
    try {
      const artifact = await makeArtifact(directory, { seed: "volume", signal });
      const image = await rig.addLayout("rig/volume", "1", artifact);
      const nodes = rig.containerds.map(({ cri, version }, index) => ({ cri, version, index }));
      // 1.6 unpacks whatever it pulls, and refuses an artifact then, wherever it came from.
      const [holder, ...others] = nodes.filter((node) => !node.version.startsWith("1.6."));
      if (holder !== undefined) {
        await holder.cri.pull(image.name);
        await rig.untilShared(image, holder.index);
      }
      await withoutUpstream(async () => {
        for (const node of others) {
          await node.cri.pull(image.name);
          const tags = (await node.cri.images()).flatMap((each) => each.repo_tags);
          assert.ok(tags.includes(image.name), `${node.version}: ${tags.join(", ")}`);
        }
      });
      for (const enabled of [true, false]) {
        for (const { cri, index } of nodes.filter((node) => node.version.startsWith("1.6."))) {
          await rig.spegels[index]?.setMirror(enabled);
          try {
            await assert.rejects(cri.pull(image.name), /mismatched image rootfs and manifest layers/);
          } finally {
            await rig.spegels[index]?.setMirror(true);
          }
        }
      }
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("share a layer of 1 GiB", async () => {
    const image = await rig.addImage("rig/gib", "1", { seed: "gib", layerSizesBytes: [1024 * MIB] });
    const before = await fromPeers(1);
    await rig.containerds[2]?.cri.pull(image.name);
    await rig.untilShared(image, 2);
    await withoutUpstream(async () => rig.containerds[1]?.cri.pull(image.name));
    assert.ok((await fromPeers(1)) - before > 1024 * MIB);
    for (const node of [1, 2]) await rig.containerds[node]?.cri.remove(image.name);
  });

  it("fall back to the upstream for what nobody has, and only for that", async () => {
    const image = await rig.addImage("rig/fresh", "1", { seed: "fresh", layerSizesBytes: [MIB] });
    const before = rig.registry.bytesServed();
    await rig.containerds[2]?.cri.pull(image.name);
    assert.ok(rig.registry.bytesServed() > before);
    await rig.untilShared(image, 2);
    const afterFirst = rig.registry.bytesServed();
    await rig.containerds[0]?.cri.pull(image.name);
    assert.equal(rig.registry.bytesServed(), afterFirst);
  });

  it("pull at the same time from their only holder, and nothing from the upstream", async () => {
    const layerSizesBytes = [16 * MIB, 16 * MIB, 8 * MIB];
    const image = await rig.addImage("rig/burst", "1", { seed: "burst", layerSizesBytes });
    await rig.containerds[1]?.cri.pull(image.name);
    await rig.untilShared(image, 1);
    await withoutUpstream(() => Promise.all(rig.containerds.map((node) => node.cri.pull(image.name))));
  });

  it("never answer 429, whatever they were asked before", async () => {
    for (const spegel of rig.spegels)
      assert.equal(await spegel.metric("http_request_duration_seconds_count", 'code="429"'), 0);
  });

  it("pull from the upstream when the mirror is stopped", async () => {
    const image = await rig.addImage("rig/no-mirror", "1", { seed: "no-mirror", layerSizesBytes: [MIB] });
    const [, spegel] = rig.spegels;
    await spegel?.process.stop();
    await rig.containerds[1]?.cri.pull(image.name);
    await spegel?.start();
    await until(async () => (await spegel?.ready()) === 200);
  });
});
