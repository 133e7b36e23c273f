// SPDX-License-Identifier: Apache-2.0
import { ConfigError, type ConfigProblem } from "./errors.ts";
import { environmentName, flagName } from "./names.ts";

/** A setting as far as reading it from text goes. Satisfied by a property of a JSON schema. */
export interface Setting {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly default?: unknown;
  readonly description?: string;
  /** Bounds of a number, included. */
  readonly minimum?: number;
  readonly maximum?: number;
}

export type Settings = Readonly<Record<string, Setting>>;

/** Values with the place each came from, for messages. */
export interface SettingValues {
  readonly values: Record<string, unknown>;
  readonly origins: Record<string, string>;
}

/**
 * Reads flags the way go-arg does: `--flag value`, `--flag=value`, booleans with or without a value, list flags
 * take all following tokens that are no flags. Unknown flags and stray words are errors.
 *
 * @throws ConfigError CONFIG_INVALID with every problem
 */
export function parseFlags(
  settings: Settings,
  argv: readonly string[],
): SettingValues & { readonly file?: string } {
  const keys = new Map(Object.keys(settings).map((key) => [flagName(key), key]));
  const result: SettingValues = { values: {}, origins: {} };
  const problems: ConfigProblem[] = [];
  let file: string | undefined;

  for (let at = 0; at < argv.length; at++) {
    const token = argv[at] as string;
    if (!token.startsWith("--")) {
      problems.push({ path: token.slice(0, 80), message: "is not a flag; flags begin with --" });
      continue;
    }
    const equals = token.indexOf("=");
    const name = token.slice(2, equals < 0 ? undefined : equals);
    const inline = equals < 0 ? undefined : token.slice(equals + 1);
    const words = inline === undefined ? followingWords(argv, at) : [inline];

    if (name === "config") {
      file = words[0];
      if (file === undefined) problems.push({ path: "--config", message: "needs a file name" });
      if (inline === undefined && file !== undefined) at++;
      continue;
    }
    const key = keys.get(name);
    const setting = key === undefined ? undefined : settings[key];
    if (key === undefined || setting === undefined) {
      problems.push({ path: `--${name.slice(0, 80)}`, message: "is not a known flag; see --help" });
      if (inline === undefined) at += words.length;
      continue;
    }
    const origin = `--${name}`;
    if (setting.type === "array") {
      if (inline === undefined) at += words.length;
      result.values[key] = words;
    } else if (setting.type === "boolean") {
      const next = words[0];
      const given = inline ?? (next === "true" || next === "false" ? next : undefined);
      if (inline === undefined && given !== undefined) at++;
      result.values[key] = given === undefined ? true : readText(setting, given, origin, problems);
    } else if (words[0] === undefined) {
      problems.push({ path: origin, message: "needs a value" });
    } else {
      if (inline === undefined) at++;
      result.values[key] = readText(setting, words[0], origin, problems);
    }
    result.origins[key] = origin;
  }
  if (problems.length > 0) throw new ConfigError({ code: "CONFIG_INVALID", problems });
  return { ...result, ...(file === undefined ? {} : { file }) };
}

function followingWords(argv: readonly string[], at: number): string[] {
  const words: string[] = [];
  for (let next = at + 1; next < argv.length && !(argv[next] as string).startsWith("--"); next++) {
    words.push(argv[next] as string);
  }
  return words;
}

/** Reads settings from environment variables; lists are CSV, empty variables count as absent. @throws ConfigError */
export function parseEnvironment(
  settings: Settings,
  environment: Readonly<Record<string, string | undefined>>,
): SettingValues {
  const result: SettingValues = { values: {}, origins: {} };
  const problems: ConfigProblem[] = [];
  for (const [key, setting] of Object.entries(settings)) {
    const name = environmentName(key);
    const text = environment[name];
    if (text === undefined || text === "") continue;
    result.values[key] = readText(setting, text, name, problems);
    result.origins[key] = name;
  }
  if (problems.length > 0) throw new ConfigError({ code: "CONFIG_INVALID", problems });
  return result;
}

function readText(setting: Setting, text: string, path: string, problems: ConfigProblem[]): unknown {
  if (setting.type === "array") {
    return text
      .split(",")
      .map((word) => word.trim())
      .filter((word) => word !== "");
  }
  if (setting.type === "boolean") {
    if (text === "true" || text === "1") return true;
    if (text === "false" || text === "0") return false;
    problems.push({ path, message: `"${text.slice(0, 40)}" is neither true nor false` });
    return undefined;
  }
  if (setting.type === "integer") {
    if (/^-?[0-9]{1,15}$/.test(text)) return Number(text);
    problems.push({ path, message: `"${text.slice(0, 40)}" is not a whole number` });
    return undefined;
  }
  // An enumeration is written in any case on the command line, as log levels are.
  const known = setting.enum?.find((each) => each.toLowerCase() === text.toLowerCase());
  return known ?? text;
}
