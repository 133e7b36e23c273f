// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { SPEGEL_BINARY_PATH_IN_IMAGE, SPEGEL_LIBRARIES } from "#nodelayout";
import type { DemoImage } from "../demo/demo-image.ts";
import { silentProgress } from "../demo/progress.ts";
import { hostPlatform } from "../demo/pull-images.ts";
import { runScenario } from "../demo/run-scenario.ts";
import { makeImage } from "../kit/image-maker/index.ts";

const DAEMON = fileURLToPath(new URL("../../cmd/spegel/main.ts", import.meta.url));

test("a Shoot gets its mirror, and nodes pull from each other after the registry has gone", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "main-job-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const images = await smallImages(directory, t.signal);
  const rows = await runScenario({ directory, images, progress: silentProgress, signal: t.signal });

  const objects = (image: DemoImage): number => image.layout.objects.length;
  const perNode = objects(images.spegel) + objects(images.large);
  for (const [node, source] of [
    ["node-1", "upstream"],
    ["node-2", "peer"],
    ["node-3", "peer"],
  ] as const) {
    const mine = rows.filter((row) => row.node === node);
    assert.equal(mine.length, perNode);
    assert.ok(mine.every((row) => row.source.kind === source && row.bytes === row.object.sizeBytes));
  }
});

test("an interrupted main job leaves no process behind", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "main-job-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const images = await smallImages(directory, t.signal);
  const stop = new AbortController();
  let running = 0;
  const progress = {
    ...silentProgress,
    step(title: string) {
      if (!title.startsWith("node-1 pulls")) return;
      running = children().length;
      stop.abort(new Error("interrupted"));
    },
  };
  await assert.rejects(runScenario({ directory, images, progress, signal: stop.signal }), /interrupted/);
  // The registry, the extension, the bootstrapper, three daemons, and the guard of each.
  assert.ok(running >= 10, `only ${running} processes were running`);
  assert.deepEqual(children(), []);
});

function children(): readonly string[] {
  const text = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8");
  return text.split(" ").filter((pid) => pid !== "");
}

/** A node image whose executable runs the sources, and one with several small layers. */
async function smallImages(
  directory: string,
  signal: AbortSignal,
): Promise<{ readonly spegel: DemoImage; readonly large: DemoImage }> {
  const script = `#!/bin/sh\nexec "${process.execPath}" --disable-warning=ExperimentalWarning "${DAEMON}" "$@"\n`;
  const platforms = [hostPlatform()];
  const spegel = await makeImage(
    join(directory, "spegel-image"),
    {
      seed: "spegel",
      layerSizesBytes: [],
      files: [
        { path: SPEGEL_BINARY_PATH_IN_IMAGE, mode: 0o755, bytes: Buffer.from(script) },
        // A script needs none; the node agent takes them all the same.
        ...SPEGEL_LIBRARIES.map(({ pathInImage }) => ({
          path: pathInImage,
          mode: 0o644,
          bytes: Buffer.from(pathInImage),
        })),
      ],
      compression: "gzip",
      platforms,
      index: true,
    },
    { signal },
  );
  const large = await makeImage(
    join(directory, "large-image"),
    { seed: "large", layerSizesBytes: [3_000_000, 500_000, 1, 70_000], platforms },
    { signal },
  );
  return {
    spegel: { name: "spegel", repository: "gardener/extensions/spegel", tag: "dev", layout: spegel },
    large: { name: "large", repository: "demo/large", tag: "v1", layout: large },
  };
}
