// SPDX-License-Identifier: Apache-2.0
/**
 * `make demo`: the main job on this machine, without root. A Shoot gets its mirror, node-1 pulls two images from
 * their registry, the registry goes away, node-2 and node-3 pull them from their neighbours.
 *
 * Exits with 0 only when every digest is right and every byte came from where it should.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SPEGEL_DEFAULT_PORTS } from "#api/spegel";
import { errorMessage, hasCode } from "#errors";
import { formatReport } from "./format-report.ts";
import { prepareImages } from "./prepare-images.ts";
import { createProgress } from "./progress.ts";
import { runScenario } from "./run-scenario.ts";

const EXIT_FAILED = 1;
const EXIT_INTERRUPTED = 130;

const stop = new AbortController();
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(name, () => {
    stop.abort(new Error(`interrupted by ${name}`));
    process.once(name, () => process.exit(EXIT_INTERRUPTED)); // the guards of the children end them
  });
}

const progress = createProgress(process.stdout);
try {
  await using running = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "spegel-demo-"));
  running.defer(() => rm(directory, { recursive: true, force: true }));
  progress.step("Prepare the images: spegel's node image, and a large one of four layers");
  const images = await prepareImages(directory, { progress, signal: stop.signal });
  const rows = await runScenario({
    directory,
    images,
    preferredPorts: SPEGEL_DEFAULT_PORTS,
    progress,
    signal: stop.signal,
  });
  progress.step("Done: every digest is right, and every byte came from where it should");
  process.stdout.write(`\n${formatReport(rows)}\n\n`);
  progress.step("Stop everything and remove the folders");
} catch (error) {
  const reason = hasCode(error, "DEMO_CHECK_FAILED") ? "the result is wrong" : "a step failed";
  const interrupted = stop.signal.aborted;
  process.stderr.write(
    `\ndemo: ${interrupted ? errorMessage(stop.signal.reason) : `${reason}: ${errorMessage(error)}`}\n`,
  );
  process.exitCode = interrupted ? EXIT_INTERRUPTED : EXIT_FAILED;
}
