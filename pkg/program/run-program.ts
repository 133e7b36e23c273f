// SPDX-License-Identifier: Apache-2.0
import { ConfigError } from "#config";
import { errorMessage } from "#errors";
import { createLogger, type Logger, type LogLevel } from "#log";

export interface ProgramContext {
  readonly logger: Logger;
  /** Aborts with the first SIGTERM or SIGINT. */
  readonly signal: AbortSignal;
}

export interface Program<Flags extends { readonly logLevel: LogLevel }> {
  /** As people call it, for messages. */
  readonly name: string;
  /** The text of `--help`. */
  readonly usage: string;
  /** @throws ConfigError */
  readFlags(input: {
    readonly argv: readonly string[];
    readonly environment: Readonly<Record<string, string | undefined>>;
  }): Promise<Flags>;
  /** Works until the signal aborts, then stops cleanly. */
  run(flags: Flags, context: ProgramContext): Promise<void>;
}

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

/**
 * Runs a program in this process: exit code 0 after a clean stop, 2 for settings that cannot be used, 1 for any
 * other failure. A second signal does not wait for requests under way.
 */
export async function runProgram<Flags extends { readonly logLevel: LogLevel }>(
  program: Program<Flags>,
  self: NodeJS.Process,
): Promise<void> {
  const argv = self.argv.slice(2);
  if (argv.includes("--help") || argv.includes("-h")) {
    self.stdout.write(program.usage);
    return;
  }
  try {
    const flags = await program.readFlags({ argv, environment: self.env });
    const logger = createLogger({ level: flags.logLevel });
    await program.run(flags, { logger, signal: signalOf(self, logger) });
  } catch (error) {
    if (error instanceof ConfigError) {
      const problems = error.problems.map(({ path, message }) => `  ${path}: ${message}\n`).join("");
      self.stderr.write(`${program.name}: the settings are not usable:\n${problems}\n${program.usage}`);
      self.exitCode = EXIT_USAGE;
    } else {
      self.stderr.write(`${program.name}: ${errorMessage(error)}\n`);
      self.exitCode = EXIT_FAILURE;
    }
  }
}

function signalOf(self: NodeJS.Process, logger: Logger): AbortSignal {
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    self.once(name, () => {
      logger.info("stopping", { signal: name });
      stop.abort();
      self.once(name, () => self.exit(EXIT_FAILURE));
    });
  }
  return stop.signal;
}
