// SPDX-License-Identifier: Apache-2.0
import type { TomlTable, TomlValue } from "smol-toml";

/**
 * The keys of a table, then its sub-tables, the way go-toml v2 marshals a map: keys in alphabetical order, single
 * quotes where a literal string can hold the text, arrays in one line, an empty line before each sub-table.
 *
 * @param path dotted path of the table, already formatted, e.g. `host.'https://quay.io'`
 */
export function formatTable(path: string, table: TomlTable): string {
  return [`[${path}]`, ...formatBody(path, table)].join("\n");
}

/** What stands below the header of a table: its keys, then its sub-tables. `path` is empty for the top level. */
export function formatBody(path: string, table: TomlTable): string[] {
  const lines = formatKeys(table);
  for (const [key, value] of sorted(table)) {
    if (!isTable(value)) continue;
    if (lines.length > 0) lines.push("");
    lines.push(formatTable(path === "" ? formatKey(key) : `${path}.${formatKey(key)}`, value));
  }
  return lines;
}

/** `key = value` lines of a table, without its sub-tables. */
export function formatKeys(table: TomlTable): string[] {
  return sorted(table).flatMap(([key, value]) =>
    isTable(value) ? [] : [`${formatKey(key)} = ${formatValue(value)}`],
  );
}

export function formatKey(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : formatString(key);
}

export function isTable(value: TomlValue): value is TomlTable {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null;
}

function sorted(table: TomlTable): [string, TomlValue][] {
  return Object.entries(table).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
}

function formatValue(value: TomlValue): string {
  if (typeof value === "string") return formatString(value);
  if (typeof value === "number") return formatNumber(value);
  if (typeof value === "boolean" || typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map(formatValue).join(", ")}]`;
  if (!isTable(value)) return value.toISOString();
  return `{${sorted(value)
    .map(([key, each]) => `${formatKey(key)} = ${formatValue(each)}`)
    .join(", ")}}`;
}

function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  return String(value);
}

function formatString(text: string): string {
  if (!text.split("").some(needsEscape)) return `'${text}'`;
  // JSON escapes are TOML escapes, except that TOML also wants DEL escaped.
  return JSON.stringify(text).replaceAll("\u007f", "\\u007F");
}

/** What a literal string cannot hold: its own quote and control characters other than a tab. */
function needsEscape(character: string): boolean {
  return character === "'" || (character < " " && character !== "\t") || character === "\u007f";
}
