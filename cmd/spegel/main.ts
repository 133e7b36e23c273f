// SPDX-License-Identifier: Apache-2.0
import { type RegistryConfiguration, registrySchema, validateRegistryConfiguration } from "#api/config";
import { ConfigError, loadSettings, usage } from "#config";
import { errorMessage } from "#errors";
import { createLogger, type LogLevel } from "#log";
import { printVersion } from "./version.ts";
import { openRegistry } from "./wire.ts";

const COMMANDS = `Usage: spegel <command> [flags]

Commands:
  registry   serve this node's images to containerd and to other nodes (long running)
  version    print the version

"spegel <command> --help" lists the flags of a command.
`;

/** Splits off the command; global flags may stand before it, as in \`spegel --log-level=DEBUG registry\`. */
function splitCommand(argv: readonly string[]): {
  readonly command: string | undefined;
  readonly flags: readonly string[];
} {
  const at = argv.findIndex((word, index) => !word.startsWith("-") && argv[index - 1] !== "--log-level");
  if (at < 0) return { command: undefined, flags: argv };
  return { command: argv[at], flags: [...argv.slice(0, at), ...argv.slice(at + 1)] };
}

async function runRegistry(flags: readonly string[]): Promise<void> {
  const schema = { properties: registrySchema.properties, validate: validateRegistryConfiguration };
  const configuration = await loadSettings<RegistryConfiguration>(schema, {
    argv: flags,
    environment: process.env,
  });
  const log = createLogger({ level: configuration.logLevel as LogLevel });
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => {
      log.info("Stopping.", { signal: name });
      stop.abort();
      process.once(name, () => process.exit(1)); // a second one does not wait for requests under way
    });
  }
  try {
    await using registry = await openRegistry(configuration, { log, signal: stop.signal });
    await registry.finished;
    log.info("exit gracefully");
  } catch (error) {
    if (stop.signal.aborted) return;
    log.error("exit with error", { err: error });
    process.exitCode = 1;
  }
}

async function main(argv: readonly string[]): Promise<void> {
  const { command, flags } = splitCommand(argv);
  const wantsHelp = flags.includes("--help") || flags.includes("-h");
  if (command === "registry" && wantsHelp) {
    process.stdout.write(usage("spegel registry", registrySchema.properties));
    return;
  }
  if (command === "registry") return runRegistry(flags);
  if (command === "version") return printVersion(flags);
  if (wantsHelp || command === "help") {
    process.stdout.write(COMMANDS);
    return;
  }
  process.stderr.write(
    command === undefined ? COMMANDS : `spegel: unknown command "${command.slice(0, 80)}"\n\n${COMMANDS}`,
  );
  process.exitCode = 1;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const text =
    error instanceof ConfigError
      ? error.problems.map((each) => `  ${each.path}: ${each.message}`).join("\n")
      : errorMessage(error);
  process.stderr.write(
    `spegel: ${error instanceof ConfigError ? `the settings are not usable:\n${text}` : text}\n`,
  );
  process.exitCode = 1;
}
