// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import { errorMessage } from "#errors";
import { parseEnvironment, parseFlags, type Settings } from "./command-line.ts";
import { ConfigError, type ConfigProblem } from "./errors.ts";

const MAX_FILE_BYTES = 1024 * 1024;

/** A validator compiled ahead of time. */
export interface Validate {
  (value: unknown): boolean;
  errors?:
    | readonly {
        readonly instancePath: string;
        readonly keyword: string;
        readonly message?: string;
        readonly params: Readonly<Record<string, unknown>>;
      }[]
    | null;
}

/**
 * Settings of a program: schema defaults < file (`--config`, YAML or JSON) < environment < flags, checked against the schema and frozen.
 *
 * @throws ConfigError CONFIG_INVALID naming each wrong setting by the place it was written; CONFIG_FILE_UNREADABLE
 */
export async function loadSettings<T>(
  schema: { readonly properties: Settings; readonly validate: Validate },
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

  if (!schema.validate(values)) {
    const problems = (schema.validate.errors ?? []).map((error) =>
      describe(error, values, origins, schema.properties),
    );
    throw new ConfigError({ code: "CONFIG_INVALID", problems: dedupe(problems) });
  }
  return Object.freeze(values) as T;
}

function defaultsOf(settings: Settings): Record<string, unknown> {
  const entries = Object.entries(settings).filter(([, setting]) => setting.default !== undefined);
  return Object.fromEntries(entries.map(([key, setting]) => [key, structuredClone(setting.default)]));
}

async function readSettingsFile(path: string): Promise<Record<string, unknown>> {
  const unreadable = (message: string, cause?: unknown): ConfigError =>
    new ConfigError({ code: "CONFIG_FILE_UNREADABLE", problems: [{ path, message }], cause });
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw unreadable("cannot be read", error);
  }
  if (text.length > MAX_FILE_BYTES) throw unreadable(`is larger than ${MAX_FILE_BYTES} bytes`);
  // Loaded only when a file is given: it costs memory that the daemon does not have to spare.
  const { parse } = await import("yaml");
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: 0 });
  } catch (error) {
    throw unreadable(`is not valid YAML or JSON (${errorMessage(error).split("\n")[0]})`, error);
  }
  if (document === null || document === undefined) return {};
  if (typeof document !== "object" || Array.isArray(document)) throw unreadable("is not a YAML mapping");
  return document as Record<string, unknown>;
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
