// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { hasCode } from "#errors";
import { digestHex } from "#oci";
import { makeImage } from "../kit/image-maker/index.ts";
import type { DemoImage } from "./demo-image.ts";
import { createDemoNodes } from "./demo-node.ts";
import { type NodePull, pullImages } from "./pull-images.ts";
import { startUpstream } from "./start-upstream.ts";
import { verifyPulls } from "./verify-pulls.ts";

const never = new AbortController().signal;
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "verify-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

/** One image, pulled from upstream on a node that has no mirror. */
async function pullOnce(): Promise<{ readonly pull: NodePull; readonly image: DemoImage }> {
  const layout = await makeImage(
    join(directory, "image"),
    { seed: "verify", layerSizesBytes: [5000] },
    { signal: never },
  );
  const image = { name: "app", repository: "demo/app", tag: "v1", layout };
  const [node] = await createDemoNodes(directory);
  assert.ok(node);
  await using running = new AsyncDisposableStack();
  const upstream = await startUpstream([image], { signal: never }, running);
  const [pull] = await pullImages(node, [image], { upstream, signal: never });
  assert.ok(pull);
  return { pull, image };
}

const isRefused =
  (message: RegExp) =>
  (error: unknown): boolean =>
    hasCode(error, "DEMO_CHECK_FAILED") && message.test(error.message);

test("a blob that was changed on a node is found by its digest", async () => {
  const { pull } = await pullOnce();
  const layer = pull.report.objects.find((object) => object.kind === "layer");
  assert.ok(layer);
  {
    await using file = await open(
      join(pull.node.storeDirectory, "blobs/sha256", digestHex(layer.digest)),
      "r+",
    );
    await file.write(Buffer.from("!"), 0, 1, 1000);
  }
  await assert.rejects(
    verifyPulls([pull], [], { upstream: [], signal: never }),
    isRefused(/layer sha256:.* has the digest/),
  );
});

test("an image that was resolved to something else, or has parts of another, is refused", async () => {
  const { pull, image } = await pullOnce();
  const other = await makeImage(
    join(directory, "other"),
    { seed: "other", layerSizesBytes: [1] },
    { signal: never },
  );
  const moved = { ...pull, image: { ...image, layout: { ...image.layout, root: other.root } } };
  await assert.rejects(
    verifyPulls([moved], [], { upstream: [], signal: never }),
    isRefused(/resolved app to/),
  );
  const mixed = { ...pull, image: { ...image, layout: { ...other, root: image.layout.root } } };
  await assert.rejects(
    verifyPulls([mixed], [], { upstream: [], signal: never }),
    isRefused(/no part of app/),
  );
  const empty = { ...pull, report: { ...pull.report, objects: [] } };
  await assert.rejects(verifyPulls([empty], [], { upstream: [], signal: never }), isRefused(/got no layer/));
});
