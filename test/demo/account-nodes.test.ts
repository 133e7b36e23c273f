// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { digestHex, sha256Digest } from "#oci";
import type { RequestRecord } from "../kit/registry/index.ts";
import { accountNode, type RigNode } from "./account-nodes.ts";
import type { DemoImage } from "./demo-image.ts";

const BYTES = Buffer.from("a layer");
const digest = sha256Digest(BYTES);
const layer = { digest, sizeBytes: BYTES.length, mediaType: "layer", kind: "layer" } as const;
const image = {
  name: "app",
  repository: "demo/app",
  tag: "1",
  layout: { objects: [layer] },
} as unknown as DemoImage;

describe("the account of a real containerd's pull", () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "account-nodes-"));
    for (const name of ["right", "wrong", "empty"])
      await mkdir(join(folder, name, "blobs/sha256"), { recursive: true });
    await writeFile(join(folder, "right/blobs/sha256", digestHex(digest)), BYTES);
    await writeFile(join(folder, "wrong/blobs/sha256", digestHex(digest)), "something else");
  });
  after(() => rm(folder, { recursive: true }));

  /** A node whose mirror wrote these lines. */
  function nodeOf(name: string, lines: readonly object[], content = "right"): RigNode {
    const all = [{ msg: "Serving.", peer: `id of ${name}` }, ...lines];
    const output = { lines: all.map((line) => ({ stream: "stderr", text: JSON.stringify(line) })) };
    return {
      name,
      containerd: { contentPath: join(folder, content), namespace: { address: `address of ${name}` } },
      spegel: { process: { output } },
    } as unknown as RigNode;
  }
  const answered = (more: object): object => ({
    msg: "Request answered.",
    method: "GET",
    reference: digest,
    mirrored: false,
    bytes: BYTES.length,
    source: "peer",
    peers: ["id of holder"],
    durationMs: 2,
    ...more,
  });
  const served = (client: string, bytes = BYTES.length): RequestRecord => ({
    method: "GET",
    path: `/v2/demo/app/blobs/${digest}`,
    client,
    status: 200,
    bytes,
    durationMs: 3,
  });
  const account = (
    node: RigNode,
    expected: "upstream" | "peer",
    upstream: readonly RequestRecord[] = [],
  ): ReturnType<typeof accountNode> =>
    accountNode(node, image, {
      expected,
      nodes: [node, nodeOf("holder", [])],
      upstream,
      settleTimeoutMs: 0,
    });

  it("names the upstream or the peer, with bytes and time", async () => {
    const [fromUpstream] = await account(nodeOf("a", []), "upstream", [served("address of a"), served("b")]);
    assert.deepEqual(
      [fromUpstream?.source, fromUpstream?.bytes, fromUpstream?.object.durationMs],
      [{ kind: "upstream" }, BYTES.length, 3],
    );
    const [fromPeer] = await account(nodeOf("a", [answered({})]), "peer");
    assert.deepEqual(
      [fromPeer?.source, fromPeer?.bytes, fromPeer?.object.durationMs],
      [{ kind: "peer", nodes: ["holder"] }, BYTES.length, 2],
    );
  });

  it("fails when a byte came from the wrong place, is missing or came twice, or from nobody that is known", async () => {
    const own = "address of a";
    const peer = nodeOf("a", [answered({})]);
    await assert.rejects(account(peer, "peer", [served(own, 1)]), /1 bytes .* from the wrong place/);
    await assert.rejects(account(peer, "upstream", [served(own)]), /from the wrong place/);
    await assert.rejects(account(nodeOf("a", []), "upstream", [served("b")]), /got 0 bytes/);
    await assert.rejects(account(nodeOf("a", [answered({}), answered({})]), "peer"), /got 14 bytes/);
    await assert.rejects(account(nodeOf("a", [answered({ source: "local" })]), "peer"), /from "local"/);
    await assert.rejects(account(nodeOf("a", [answered({ peers: ["x"] })]), "peer"), /unknown peer x/);
  });

  it("fails when the node's file is absent or does not hash to its digest", async () => {
    for (const [content, reason] of [
      ["wrong", /has the digest/],
      ["empty", /does not have layer/],
    ] as const)
      await assert.rejects(account(nodeOf("a", [answered({})], content), "peer"), reason);
  });
});
