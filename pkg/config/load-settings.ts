// SPDX-License-Identifier: Apache-2.0
import { parseEnvironment, parseFlags, type Settings } from "./command-line.ts";
import { ConfigError, type ConfigProblem } from "./errors.ts";
import { readDocument } from "./read-document.ts";
import { createTypeValidator, type Validate } from "./type-validator.ts";

export interface SettingsSchema<T> {
  readonly properties: Settings;
  /** Default: names, types and enumerations of the properties. */
  readonly validate?: Validate;
  /** Puts in what comes from elsewhere, before it is judged. */
  readonly complete?: (settings: T) => T | Promise<T>;
  /** What is wrong with values beyond the bounds of numbers, e.g. what they mean together. */
  readonly judge?: (settings: T) => readonly ConfigProblem[];
}

/**
 * Settings of a program: schema defaults < file (`--config`, YAML or JSON) < environment < flags, checked against the
 * schema, then completed, judged and frozen.
 *
 * @throws ConfigError CONFIG_INVALID naming each wrong setting by the place it was written; CONFIG_FILE_UNREADABLE
 */
export async function loadSettings<T>(
  schema: SettingsSchema<T>,
  input: {
    readonly argv: readonly string[];
    readonly environment: Readonly<Record<string, string | undefined>>;
  },
): Promise<T> {
  const flags = parseFlags(schema.properties, input.argv);
  const environment = parseEnvironment(schema.properties, input.environment);
  const file = flags.file === undefined ? {} : await readSettingsFile(flags.file);
  const values = { ...defaultsOf(schema.properties), ...file, ...environment.values, ...flags.values };
  const origins = { ...environment.origins, ...flags.origins };

  const { validate = createTypeValidator(schema.properties) } = schema;
  if (!validate(values)) {
    const problems = (validate.errors ?? []).map((error) =>
      describe(error, values, origins, schema.properties),
    );
    throw new ConfigError({ code: "CONFIG_INVALID", problems: dedupe(problems) });
  }
  const settings = schema.complete ? await schema.complete(values as T) : (values as T);
  const problems = [...judgeBounds(values, schema.properties, origins), ...(schema.judge?.(settings) ?? [])];
  if (problems.length > 0) throw new ConfigError({ code: "CONFIG_INVALID", problems });
  return Object.freeze(settings);
}

function judgeBounds(
  values: Readonly<Record<string, unknown>>,
  settings: Settings,
  origins: Readonly<Record<string, string>>,
): ConfigProblem[] {
  return Object.entries(settings).flatMap(([key, { minimum = -Infinity, maximum = Infinity }]) => {
    const value = values[key];
    if (typeof value !== "number" || (value >= minimum && value <= maximum)) return [];
    return [{ path: origins[key] ?? key, message: `must be between ${minimum} and ${maximum}` }];
  });
}

function defaultsOf(settings: Settings): Record<string, unknown> {
  const entries = Object.entries(settings).filter(([, setting]) => setting.default !== undefined);
  return Object.fromEntries(entries.map(([key, setting]) => [key, structuredClone(setting.default)]));
}

async function readSettingsFile(path: string): Promise<Record<string, unknown>> {
  const document = await readDocument(path);
  if (document === null || document === undefined) return {};
  if (typeof document === "object" && !Array.isArray(document)) return document as Record<string, unknown>;
  const problem = { path, message: "is not a YAML mapping" };
  throw new ConfigError({ code: "CONFIG_FILE_UNREADABLE", problems: [problem] });
}

function describe(
  error: NonNullable<Validate["errors"]>[number],
  values: Record<string, unknown>,
  origins: Record<string, string>,
  settings: Settings,
): ConfigProblem {
  if (error.keyword === "additionalProperties") {
    return { path: String(error.params["additionalProperty"]), message: "is not a known setting" };
  }
  if (error.keyword === "required") {
    const key = String(error.params["missingProperty"]);
    return { path: key, message: `is required${allowedValues(settings[key])}` };
  }
  const [, key = "", ...rest] = error.instancePath.split("/");
  const path = [origins[key] ?? key, ...rest].join("/");
  const value = JSON.stringify(values[key])?.slice(0, 80) ?? "nothing";
  const hint =
    error.keyword === "enum" ? allowedValues(settings[key]) : ` (${error.message ?? error.keyword})`;
  return {
    path,
    message: `${value} is not valid${hint}; expected: ${settings[key]?.description ?? "see --help"}`,
  };
}

function allowedValues(setting: Settings[string] | undefined): string {
  return setting?.enum === undefined ? "" : `; one of ${setting.enum.join(", ")}`;
}

function dedupe(problems: readonly ConfigProblem[]): ConfigProblem[] {
  const seen = new Map(problems.map((problem) => [`${problem.path}\n${problem.message}`, problem]));
  return [...seen.values()];
}
