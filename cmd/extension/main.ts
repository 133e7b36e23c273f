// SPDX-License-Identifier: Apache-2.0
/** `extension`: keeps Extensions of type registry-spegel, and the webhook for node configurations. */
import { ConfigError } from "#config";
import { errorMessage } from "#errors";
import { createLogger } from "#log";
import { type ExtensionFlags, readFlags, USAGE } from "./flags.ts";
import { openExtension } from "./wire.ts";

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
    process.stderr.write(`extension: the settings are not usable:\n${problems}\n${USAGE}`);
    process.exitCode = EXIT_USAGE;
  }
}

/** Works until SIGTERM or SIGINT, or until it cannot go on; a second signal does not wait for anything. */
async function run(flags: ExtensionFlags): Promise<void> {
  const logger = createLogger({ level: flags.logLevel });
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => {
      logger.info("stopping", { signal: name });
      stop.abort();
      process.once(name, () => process.exit(EXIT_FAILURE));
    });
  }
  await using program = await openExtension({ logger, environment: process.env, signal: stop.signal }, flags);
  logger.info("running", {
    health: program.healthAddress,
    metrics: program.metricsAddress,
    webhook: program.webhookAddress,
    gardenerVersion: flags.gardenerVersion,
  });
  await program.finished;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`extension: ${errorMessage(error)}\n`);
  process.exitCode = EXIT_FAILURE;
}
