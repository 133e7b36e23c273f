// SPDX-License-Identifier: Apache-2.0
/**
 * From schema, file, environment and flags to one frozen value.
 *
 * Parsed once in `cmd`; nothing below it reads the process. `createDecoder` is the only part that needs Ajv at
 * run time; the node daemon uses validators compiled ahead and does not carry it.
 */
export { parseEnvironment, parseFlags, type Setting, type Settings } from "./command-line.ts";
export { createDecoder } from "./decoder.ts";
export { parseDuration } from "./duration.ts";
export { ConfigError, type ConfigErrorCode, type ConfigProblem } from "./errors.ts";
export { loadSettings, type SettingsSchema } from "./load-settings.ts";
export { readDocument } from "./read-document.ts";
export { choice, flag, integer, list, text } from "./setting.ts";
export type { Validate } from "./type-validator.ts";
export { usage } from "./usage.ts";
