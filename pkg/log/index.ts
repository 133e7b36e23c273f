// SPDX-License-Identifier: Apache-2.0
/**
 * The logger of all programs: JSON lines on stderr, as Spegel writes them.
 *
 * The message is a constant sentence without values; values are fields. `debug` says why, `info` that a
 * state changed, `warn` degraded yet served, `error` someone must act. pino stands behind the interface
 * and is imported nowhere else.
 */
import { pino } from "pino";
import { errorMessage } from "#errors";

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger that adds these fields to every line. */
  child(fields: LogFields): Logger;
}

export const LOG_LEVELS = ["DEBUG", "INFO", "WARN", "ERROR"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Where lines go; `process.stderr` in programs, an array in tests. */
export interface LogSink {
  write(line: string): void;
}

/** A logger that writes lines of at least `level` to `sink`. A field `err` may be an Error: its message and causes are written. */
export function createLogger(options: { readonly level: LogLevel; readonly sink?: LogSink }): Logger {
  const destination = options.sink ?? pino.destination({ fd: 2, sync: true });
  const root = pino(
    {
      level: options.level.toLowerCase(),
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label.toUpperCase() }) },
      serializers: { err: (error: unknown) => (typeof error === "string" ? error : errorMessage(error)) },
    },
    destination,
  );
  return wrap(root);
}

/** The part of a pino logger that is used here. */
interface Pino {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: object): Pino;
}

function wrap(target: Pino): Logger {
  return {
    debug: (message, fields) => target.debug(fields ?? {}, message),
    info: (message, fields) => target.info(fields ?? {}, message),
    warn: (message, fields) => target.warn(fields ?? {}, message),
    error: (message, fields) => target.error(fields ?? {}, message),
    child: (fields) => wrap(target.child(fields)),
  };
}

/** Drops everything; the default in tests. */
export const silentLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLogger,
};
