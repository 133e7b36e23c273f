// SPDX-License-Identifier: Apache-2.0
/** Real containerds pull through the daemon, by CRI, with the upstream gone. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { openRig, type Rig, type RigImage } from "../kit/node-rig/index.ts";

const MIB = 1024 * 1024;
const signal = AbortSignal.timeout(280_000);

describe("three nodes with containerd and the mirror", () => {
  let rig: Rig;
  before(async () => {
    rig = await openRig({
      containerds: ["containerd", "containerd", "containerd"],
      program: ["dist/spegel"],
      signal,
    });
  });
  after(() => rig?.[Symbol.asyncDispose]());

  /** Pulls on the first node from upstream, then on the others without it; gives the bytes that came from peers. */
  async function shareWithoutUpstream(image: RigImage, references: readonly string[]): Promise<void> {
    const [holder, ...others] = rig.containerds;
    for (const reference of references) await holder?.cri.pull(reference);
    await rig.untilShared(image, 0);
    const servedBefore = rig.registry.requests().length;
    await rig.network.setUpstreamAvailable(false);
    try {
      for (const node of others) {
        for (const reference of references) await node.cri.pull(reference);
        const names = (await node.cri.images()).flatMap((each) => [...each.repo_tags, ...each.repo_digests]);
        assert.ok(
          names.some((name) => name.includes(image.repository)),
          names.join(", "),
        );
      }
    } finally {
      await rig.network.setUpstreamAvailable(true);
    }
    assert.equal(rig.registry.requests().length, servedBefore, "a request reached the upstream");
  }

  it("share an image of several layers by tag", async () => {
    const image = await rig.addImage("rig/layers", "1", {
      seed: "layers",
      layerSizesBytes: [8 * MIB, 3 * MIB, 1, 20 * MIB],
    });
    const before = await Promise.all(
      rig.spegels.map((spegel) => spegel.metric("spegel_sent_bytes_total", 'source="peer"')),
    );
    await shareWithoutUpstream(image, [image.name]);
    for (const index of [1, 2]) {
      const fromPeers = (await rig.spegels[index]?.metric("spegel_sent_bytes_total", 'source="peer"')) ?? 0;
      const size = image.layout.objects.reduce((sum, object) => sum + object.sizeBytes, 0);
      assert.equal(fromPeers - (before[index] ?? 0), size);
    }
  });

  it("share an image by digest", async () => {
    const image = await rig.addImage("rig/digest", "1", { seed: "digest", layerSizesBytes: [2 * MIB] });
    const byDigest = `${image.name.slice(0, image.name.lastIndexOf(":"))}@${image.layout.root.digest}`;
    const [holder, ...others] = rig.containerds;
    await holder?.cri.pull(image.name);
    await rig.untilShared(image, 0);
    await rig.network.setUpstreamAvailable(false);
    try {
      for (const node of others) await node.cri.pull(byDigest);
    } finally {
      await rig.network.setUpstreamAvailable(true);
    }
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
      const image = await rig.addImage(`rig/${name}`, "1", {
        seed: name,
        layerSizesBytes: [MIB, 2 * MIB],
        ...more,
      });
      await shareWithoutUpstream(image, [image.name]);
    }
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

  it("pull from the upstream when the mirror is stopped", async () => {
    const image = await rig.addImage("rig/no-mirror", "1", { seed: "no-mirror", layerSizesBytes: [MIB] });
    await rig.spegels[1]?.process.stop();
    await rig.containerds[1]?.cri.pull(image.name);
    await rig.spegels[1]?.restart();
  });

  it("finish a pull when the peer dies in the middle of a layer", async () => {
    const image = await rig.addImage("rig/dying", "1", { seed: "dying", layerSizesBytes: [200 * MIB] });
    await rig.containerds[0]?.cri.pull(image.name);
    await rig.untilShared(image, 0);
    const sent = () => rig.spegels[0]?.metric("http_requests_inflight", 'handler="/v2/*"') ?? 0;
    const pulling = rig.containerds[1]?.cri.pull(image.name);
    while ((await sent()) < 1) await new Promise((resolve) => setTimeout(resolve, 1));
    rig.spegels[0]?.process.kill("SIGKILL");
    await pulling;
    await rig.spegels[0]?.restart();
  });
});
