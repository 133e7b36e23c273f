// SPDX-License-Identifier: Apache-2.0
/** `bootstrapper`: tells a starting spegel which nodes exist, over mTLS. */
import { once } from "node:events";
import { ConfigError } from "#config";
import { errorMessage } from "#errors";
import { createLogger } from "#log";
import { type BootstrapperFlags, readFlags, USAGE } from "./flags.ts";
import { openBootstrapper } from "./wire.ts";

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

async function main(argv: readonly string[]): Promise<void> {
  if (argv.includes("--help") || argv.includes("-h")) {
    process.stdout.write(USAGE);
    return;
  }
  try {
    await run(await readFlags({ argv, environment: process.env }));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const problems = error.problems.map(({ path, message }) => `  ${path}: ${message}\n`).join("");
    process.stderr.write(`bootstrapper: the settings are not usable:\n${problems}\n${USAGE}`);
    process.exitCode = EXIT_USAGE;
  }
}

/** Serves until SIGTERM or SIGINT; a second one does not wait for requests under way. */
async function run(flags: BootstrapperFlags): Promise<void> {
  const logger = createLogger({ level: flags.logLevel });
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => {
      logger.info("stopping", { signal: name });
      stop.abort();
      process.once(name, () => process.exit(EXIT_FAILURE));
    });
  }
  await using bootstrapper = await openBootstrapper(
    { logger, environment: process.env, signal: stop.signal },
    flags,
  );
  logger.info("serving", {
    address: bootstrapper.address,
    health: bootstrapper.healthAddress,
    metrics: bootstrapper.metricsAddress,
  });
  if (!stop.signal.aborted) await once(stop.signal, "abort");
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`bootstrapper: ${errorMessage(error)}\n`);
  process.exitCode = EXIT_FAILURE;
}
