// SPDX-License-Identifier: Apache-2.0
import { access } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { makeImage, readImageLayout } from "../kit/image-maker/index.ts";
import { startProcess } from "../kit/process/index.ts";
import type { DemoImage } from "./demo-image.ts";
import { demand } from "./errors.ts";
import type { Progress } from "./progress.ts";
import { hostPlatform } from "./pull-images.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SPEGEL_LAYOUT = join(ROOT, "dist/images/spegel");
const MIB = 1024 * 1024;

/** The images of `make demo`: the node image as `make image` built it, and a large one of several layers. */
export async function prepareImages(
  directory: string,
  options: { readonly progress: Progress; readonly signal: AbortSignal },
): Promise<{ readonly spegel: DemoImage; readonly large: DemoImage }> {
  const { progress, signal } = options;
  if (!(await exists(join(SPEGEL_LAYOUT, "index.json")))) {
    progress.note("dist/images/spegel is missing: building it");
    await runScript("hack/image.ts", [`--arch=${process.arch}`], options);
  }
  const spegel = await readImageLayout(SPEGEL_LAYOUT, { signal });
  const large = await makeImage(
    join(directory, "large-image"),
    {
      seed: "demo",
      layerSizesBytes: [96 * MIB, 64 * MIB, 48 * MIB, 16 * MIB],
      compression: "zstd",
      platforms: [hostPlatform()],
      index: true,
    },
    { signal },
  );
  return {
    spegel: { name: "spegel", repository: "gardener/extensions/spegel", tag: "dev", layout: spegel },
    large: { name: "large", repository: "demo/large", tag: "v1", layout: large },
  };
}

async function runScript(
  script: string,
  args: readonly string[],
  options: { readonly progress: Progress; readonly signal: AbortSignal },
): Promise<void> {
  const { progress, signal } = options;
  await using running = await startProcess({
    name: script,
    command: process.execPath,
    args: ["--disable-warning=ExperimentalWarning", script, ...args],
    cwd: ROOT,
    ready: { kind: "spawned" },
    onLine: (line) => progress.note(line.text),
    signal,
  });
  const stop = (): void => running.kill("SIGTERM");
  signal.addEventListener("abort", stop, { once: true });
  const exit = await running.exited;
  signal.removeEventListener("abort", stop);
  signal.throwIfAborted();
  demand(exit.code === 0, `${script} failed; it wrote:\n${running.output.tail(30)}`);
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
