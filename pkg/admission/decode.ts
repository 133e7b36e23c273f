// SPDX-License-Identifier: Apache-2.0
import {
  CONTESTED_PORTS,
  type PortRange,
  RESERVED_PORTS,
  SPEGEL_API_VERSION,
  SPEGEL_CONFIG_KIND,
  SPEGEL_DEFAULT_PORTS,
  SPEGEL_PORT_FIELDS,
  SpegelConfigSchema,
  type SpegelPorts,
} from "#api/spegel";
import { ConfigError, type ConfigProblem } from "#config";

export interface DecodeOptions {
  /** Ports for those the Shoot leaves out; what this leaves out has the schema's default. */
  readonly operatorDefaults?: Partial<SpegelPorts>;
  /** Where the object was found, for messages; default `providerConfig`. */
  readonly path?: string;
}

export interface DecodedSpegelConfig {
  readonly ports: SpegelPorts;
  /** What may be done but should not be, each starting with its field path. */
  readonly warnings: readonly string[];
}

/** How many unknown fields are named; an object may hold thousands of them. */
const MAX_UNKNOWN_FIELDS = 10;
const MAX_VALUE_CHARS = 60;

/**
 * Judges and defaults `SpegelConfig`, the same way for the Shoot's admission and for the Extension controller.
 *
 * Absent, null and `{}` mean defaults: an extension that is enabled for all Shoots has no providerConfig.
 *
 * @param raw JSON as it stands in `providerConfig`
 * @throws ConfigError CONFIG_INVALID with every problem and its field path
 */
export function decodeSpegelConfig(raw: unknown, options: DecodeOptions = {}): DecodedSpegelConfig {
  const root = options.path ?? "providerConfig";
  const given = readObject(raw, root);
  const problems = [...judgeType(given, root), ...judgeUnknownFields(given, root)];
  const ports: Record<keyof SpegelPorts, number> = { ...SPEGEL_DEFAULT_PORTS, ...options.operatorDefaults };
  for (const field of SPEGEL_PORT_FIELDS) {
    const value = given[field];
    if (value === undefined || value === null) continue;
    const problem = judgePort(value);
    if (problem === undefined) ports[field] = value as number;
    else problems.push({ path: `${root}.${field}`, message: problem });
  }
  if (problems.length === 0) problems.push(...judgeDistinct(ports, given, root));
  if (problems.length > 0) throw new ConfigError({ code: "CONFIG_INVALID", problems });
  return { ports, warnings: contested(ports, root) };
}

/** The ports among an operator's settings that are set. */
export function portDefaultsOf(settings: Partial<SpegelPorts>): Partial<SpegelPorts> {
  const given = SPEGEL_PORT_FIELDS.filter((field) => settings[field] !== undefined);
  return Object.fromEntries(given.map((field) => [field, settings[field]]));
}

/**
 * Judges the ports that an operator sets as defaults by the rules for those of a Shoot: every Shoot that says nothing
 * gets them.
 *
 * @returns problems by flag, e.g. `--registry-port`
 */
export function judgePortDefaults(defaults: Partial<SpegelPorts>): ConfigProblem[] {
  const given = portDefaultsOf(defaults);
  try {
    decodeSpegelConfig({ apiVersion: SPEGEL_API_VERSION, kind: SPEGEL_CONFIG_KIND, ...given });
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map(({ path, message }) => ({
      path: path.replace(/^.*\.(\w+)Port$/, "--$1-port"),
      message: message.replace(/(\w+)Port$/, "--$1-port"),
    }));
  }
}

function readObject(raw: unknown, root: string): Readonly<Record<string, unknown>> {
  if (raw === undefined || raw === null) return {};
  if (typeof raw !== "object" || Array.isArray(raw)) {
    const problem = { path: root, message: `must be an object, not ${describe(raw)}` };
    throw new ConfigError({ code: "CONFIG_INVALID", problems: [problem] });
  }
  return raw as Readonly<Record<string, unknown>>;
}

/** An empty object needs no type; any other must say what it is. */
function judgeType(given: Readonly<Record<string, unknown>>, root: string): ConfigProblem[] {
  if (Object.keys(given).length === 0) return [];
  const expected = { apiVersion: SPEGEL_API_VERSION, kind: SPEGEL_CONFIG_KIND };
  return Object.entries(expected)
    .filter(([field, value]) => given[field] !== value)
    .map(([field, value]) => ({
      path: `${root}.${field}`,
      message: `must be "${value}"${given[field] === undefined ? "" : `, not ${describe(given[field])}`}`,
    }));
}

function judgeUnknownFields(given: Readonly<Record<string, unknown>>, root: string): ConfigProblem[] {
  const unknown = Object.keys(given).filter((field) => !Object.hasOwn(SpegelConfigSchema.properties, field));
  const named = unknown.slice(0, MAX_UNKNOWN_FIELDS).map((field) => ({
    path: `${root}.${field.slice(0, MAX_VALUE_CHARS)}`,
    message: "unknown field",
  }));
  const more = unknown.length - named.length;
  return more > 0 ? [...named, { path: root, message: `${more} more unknown fields` }] : named;
}

function judgePort(value: unknown): string | undefined {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > 65535) {
    return `must be an integer between 1 and 65535, not ${describe(value)}`;
  }
  const owner = findRange(RESERVED_PORTS, value)?.owner;
  return owner === undefined ? undefined : `port ${value} is reserved on Gardener nodes: ${owner}`;
}

/** Every two ports that are equal are named once, at the field the Shoot has set. */
function judgeDistinct(
  ports: SpegelPorts,
  given: Readonly<Record<string, unknown>>,
  root: string,
): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  for (const [index, first] of SPEGEL_PORT_FIELDS.entries()) {
    for (const second of SPEGEL_PORT_FIELDS.slice(index + 1)) {
      if (ports[first] !== ports[second]) continue;
      const [at, other] = given[second] === undefined ? [first, second] : [second, first];
      problems.push({ path: `${root}.${at}`, message: `port ${ports[at]} is already the ${other}` });
    }
  }
  return problems;
}

function contested(ports: SpegelPorts, root: string): string[] {
  return SPEGEL_PORT_FIELDS.flatMap((field) => {
    const range = findRange(CONTESTED_PORTS, ports[field]);
    if (range === undefined) return [];
    const where = `${range.first}-${range.last}`;
    return [
      `${root}.${field}: port ${ports[field]} lies in ${where}, which ${range.owner} use; spegel may fail to listen`,
    ];
  });
}

function findRange(ranges: readonly PortRange[], port: number): PortRange | undefined {
  return ranges.find(({ first, last }) => first <= port && port <= last);
}

function describe(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > MAX_VALUE_CHARS ? `${text.slice(0, MAX_VALUE_CHARS)}...` : text;
}
