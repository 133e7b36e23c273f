// SPDX-License-Identifier: Apache-2.0
import {
  type CleanupSettings,
  type CleanupWaitSettings,
  type ConfigurationSettings,
  cleanupSchema,
  cleanupWaitSchema,
  configurationSchema,
  type RegistryConfiguration,
  registrySchema,
  validateCleanupSettings,
  validateCleanupWaitSettings,
  validateConfigurationSettings,
  validateRegistryConfiguration,
} from "#api/config";
import { ConfigError, loadSettings, type Settings, usage, type Validate } from "#config";
import { errorMessage } from "#errors";
import { createLogger, type Logger, type LogLevel } from "#log";
import { runCleanup } from "./cleanup.ts";
import { runCleanupWait } from "./cleanup-wait.ts";
import { runConfiguration } from "./configuration.ts";
import { createSystemdNotifier } from "./systemd-notify.ts";
import { printVersion } from "./version.ts";
import { openRegistry } from "./wire.ts";

const COMMANDS = `Usage: spegel <command> [flags]

Commands:
  registry       serve this node's images to containerd and to other nodes (long running)
  configuration  make containerd ask the mirrors first
  cleanup        put containerd's configuration back, then answer /readyz (long running)
  cleanup-wait   wait until the clean-up has ended on all nodes
  version        print the version

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

/** A command with settings. */
interface Command {
  readonly settings: { readonly properties: Settings };
  readonly validate: Validate;
  /** A long running command is meant to be stopped by a signal; for the others that is a failure. */
  readonly isLongRunning: boolean;
  run(settings: never, context: { readonly log: Logger; readonly signal: AbortSignal }): Promise<void>;
}

const WITH_SETTINGS: Readonly<Partial<Record<string, Command>>> = {
  registry: {
    settings: registrySchema,
    validate: validateRegistryConfiguration,
    isLongRunning: true,
    async run(configuration: RegistryConfiguration, context) {
      // From the first moment on: a start that hangs is found as well.
      using systemd = createSystemdNotifier(process.env);
      await using registry = await openRegistry(configuration, context);
      systemd.notify("READY=1");
      await registry.finished;
      systemd.notify("STOPPING=1");
    },
  },
  configuration: {
    settings: configurationSchema,
    validate: validateConfigurationSettings,
    isLongRunning: false,
    run: (settings: ConfigurationSettings, context) => runConfiguration(settings, context),
  },
  cleanup: {
    settings: cleanupSchema,
    validate: validateCleanupSettings,
    isLongRunning: true,
    run: (settings: CleanupSettings, context) => runCleanup(settings, context),
  },
  "cleanup-wait": {
    settings: cleanupWaitSchema,
    validate: validateCleanupWaitSettings,
    isLongRunning: false,
    run: (settings: CleanupWaitSettings, context) => runCleanupWait(settings, context),
  },
};

async function runCommand(command: Command, flags: readonly string[]): Promise<void> {
  const schema = { properties: command.settings.properties, validate: command.validate };
  const settings = await loadSettings<{ readonly logLevel: LogLevel }>(schema, {
    argv: flags,
    environment: process.env,
  });
  const log = createLogger({ level: settings.logLevel });
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => {
      log.info("Stopping.", { signal: name });
      stop.abort();
      process.once(name, () => process.exit(1)); // a second one does not wait for requests under way
    });
  }
  try {
    await command.run(settings as never, { log, signal: stop.signal });
    log.info("exit gracefully");
  } catch (error) {
    if (stop.signal.aborted && command.isLongRunning) return;
    log.error("exit with error", { err: error });
    process.exitCode = 1;
  }
}

async function main(argv: readonly string[]): Promise<void> {
  const { command, flags } = splitCommand(argv);
  const wantsHelp = flags.includes("--help") || flags.includes("-h");
  const isKnown = command !== undefined && Object.hasOwn(WITH_SETTINGS, command);
  const known = isKnown ? WITH_SETTINGS[command] : undefined;
  if (known !== undefined && wantsHelp) {
    process.stdout.write(usage(`spegel ${command}`, known.settings.properties));
    return;
  }
  if (known !== undefined) return runCommand(known, flags);
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
