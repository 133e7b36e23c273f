// SPDX-License-Identifier: Apache-2.0
import type { TomlTable, TomlValue } from "smol-toml";
import { formatBody, formatKey, formatKeys, formatTable, isTable } from "./toml-format.ts";

/** What containerd reads from a `hosts.toml`. */
export interface HostsFile {
  /** Keys of the file's top level: `server` and the options of that server. */
  readonly root: TomlTable;
  /** Hosts in the order in which containerd asks them. */
  readonly hosts: readonly (readonly [url: string, options: TomlTable])[];
}

/** Why containerd would not take a file; it then reads the folder as if the file were not there. */
export interface RejectedHostsFile {
  readonly reason: string;
}

// A hosts.toml is nested three deep; a hostile one must not exhaust the stack.
const MAX_DEPTH = 16;

/**
 * Reads a `hosts.toml` with containerd's eyes (parseHostsFile in its remotes/docker/config).
 *
 * Hosts are taken however they are written: any quoting, through a sub-table alone, as dotted or inline keys.
 */
export async function parseHostsFile(text: string): Promise<HostsFile | RejectedHostsFile> {
  // Loaded only when there is a file to merge: the daemon never needs it.
  const { parse, TomlError } = await import("smol-toml");
  let document: TomlTable;
  try {
    document = parse(text, {
      integersAsBigInt: "asNeeded",
      maxDepth: MAX_DEPTH,
      unsafeKeyBehaviour: "throw",
    });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = error.message.split("\n")[0] ?? "invalid TOML";
    return { reason: `line ${error.line}, column ${error.column}: ${reason}` };
  }
  const { host = {}, ...root } = document;
  if (!isTable(host)) return { reason: '"host" is not a table' };
  const hosts: [string, TomlTable][] = [];
  for (const [url, options] of Object.entries(host)) {
    if (!isTable(options)) return { reason: `host "${url.slice(0, 80)}" is not a table` };
    hosts.push([url, options]);
  }
  if (root["server"] !== undefined && typeof root["server"] !== "string") {
    return { reason: '"server" is not a string' };
  }
  for (const [url, options] of [["server", root] as const, ...hosts]) {
    const wrong = wrongOption(options);
    if (wrong !== undefined)
      return { reason: `${wrong} of "${url.slice(0, 80)}" has a value containerd refuses` };
  }
  return { root, hosts };
}

const isString = (value: TomlValue): boolean => typeof value === "string";
const isBoolean = (value: TomlValue): boolean => typeof value === "boolean";
const isStringOrStrings = (value: TomlValue): boolean =>
  isString(value) || (Array.isArray(value) && value.every(isString));
const isPair = (value: TomlValue): boolean =>
  Array.isArray(value) && value.length === 2 && value.every(isString);

const ACCEPTED: Readonly<Record<string, (value: TomlValue) => boolean>> = {
  capabilities: (value) =>
    Array.isArray(value) &&
    value.every((each) => typeof each === "string" && /^(pull|resolve|push)$/i.test(each)),
  ca: isStringOrStrings,
  client: (value) =>
    isString(value) || (Array.isArray(value) && value.every((each) => isString(each) || isPair(each))),
  skip_verify: isBoolean,
  override_path: isBoolean,
  header: (value) => isTable(value) && Object.values(value).every(isStringOrStrings),
  dial_timeout: (value) =>
    typeof value === "string" && /^$|^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$/.test(value),
};

function wrongOption(options: TomlTable): string | undefined {
  return Object.entries(options).find(([key, value]) => ACCEPTED[key]?.(value) === false)?.[0];
}

/** What a generated file says before and about the mirror targets. */
export interface MirrorHosts {
  readonly targets: readonly string[];
  /** Adds the `resolve` capability: tags may be answered by a mirror. */
  readonly resolveTags: boolean;
  /** Value of an `Authorization` header that each target gets. */
  readonly authorization?: string | undefined;
}

/**
 * Writes a `hosts.toml`: server, then our targets, then the hosts that were there. Byte for byte what Spegel writes:
 * single quotes, one empty line between tables, none at the end.
 *
 * Hosts among `existing` that are our targets already are left out: containerd would ask the same mirror twice.
 */
export function formatHostsFile(
  mirror: MirrorHosts,
  server: string | undefined,
  existing: HostsFile,
): string {
  const { server: line = server, ...options } = existing.root;
  const head = [...(line === undefined ? [] : formatKeys({ server: line })), ...formatBody("", options)];
  const capabilities = mirror.resolveTags ? "['pull', 'resolve']" : "['pull']";
  const targets = mirror.targets.map((target) =>
    [
      `[host.'${target}']`,
      `capabilities = ${capabilities}`,
      "dial_timeout = '200ms'",
      ...(mirror.authorization === undefined
        ? []
        : [`[host.'${target}'.header]`, `Authorization = '${mirror.authorization}'`]),
    ].join("\n"),
  );
  const others = existing.hosts
    .filter(([url]) => !mirror.targets.includes(url.replace(/\/$/, "")))
    .map(([url, options]) => formatTable(`host.${formatKey(url)}`, options));
  return [...(head.length > 0 ? [head.join("\n")] : []), ...targets, ...others].join("\n\n");
}

/** True for a file that begins with a mirror target as {@link formatHostsFile} and Spegel write it. */
export function looksGenerated(text: string): boolean {
  const first = /^\[host\..*$/m.exec(text);
  const rest = first === null ? "" : text.slice(first.index);
  return /^\[host\.'[^'\n]+'\]\ncapabilities = \['pull'(?:, 'resolve')?\]\ndial_timeout = '200ms'/.test(rest);
}
