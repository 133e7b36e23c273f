// SPDX-License-Identifier: Apache-2.0
/** Derives a chart's values.yaml, values.schema.json and README table from one schema. */
import { stringify } from "yaml";

/** The part of a JSON schema that values use. */
export interface ValuesSchema {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, ValuesSchema>>;
  readonly required?: readonly string[];
}

/** A group holds values; a value has a default. Optional values (no default) are left out of the files for people. */
function isGroup(schema: ValuesSchema): boolean {
  return Object.keys(schema.properties ?? {}).length > 0 && schema.default === undefined;
}

/** values.yaml: every value with its default and what it means. */
export function valuesYAML(schema: ValuesSchema, source: string): string {
  const lines = (group: ValuesSchema, indent: string): string[] =>
    Object.entries(group.properties ?? {}).flatMap(([key, value]) => {
      if (isGroup(value)) return [`${indent}${key}:`, ...lines(value, `${indent}  `)];
      if (value.default === undefined) return [];
      const choice = value.enum === undefined ? "" : ` One of ${value.enum.join(", ")}.`;
      const body = stringify(
        { [key]: value.default },
        { lineWidth: 0, defaultStringType: "PLAIN" },
      ).trimEnd();
      return [
        ...wrap(`${value.description ?? ""}${choice}`, 110 - indent.length - 2).map(
          (line) => `${indent}# ${line}`,
        ),
        ...body.split("\n").map((line) => indent + line),
      ];
    });
  const head = ["# SPDX-License-Identifier: Apache-2.0", `# Generated from ${source}. Do not edit.`];
  return [...head, ...lines(schema, ""), ""].join("\n");
}

/** values.schema.json: what Helm checks before it renders. Nothing is required: values.yaml has all defaults. */
export function valuesSchemaJSON(schema: ValuesSchema): string {
  const strip = (each: ValuesSchema): object => {
    const { required: _, ...rest } = each;
    if (each.properties === undefined) return rest;
    const properties = Object.entries(each.properties).map(([key, value]) => [key, strip(value)]);
    return { ...rest, ...(properties.length === 0 ? {} : { properties: Object.fromEntries(properties) }) };
  };
  const document = { $schema: "http://json-schema.org/draft-07/schema#", ...strip(schema) };
  return `${JSON.stringify(document, null, 2)}\n`;
}

/** A Markdown table of all values. */
export function valuesTable(schema: ValuesSchema): string {
  const rows = (group: ValuesSchema, prefix: string): string[] =>
    Object.entries(group.properties ?? {}).flatMap(([key, value]) => {
      if (isGroup(value)) return rows(value, `${prefix}${key}.`);
      if (value.default === undefined) return [];
      const kind = value.enum?.join(" \\| ") ?? value.type ?? "";
      const fallback = JSON.stringify(value.default).replaceAll("|", "\\|");
      return [
        `| \`${prefix}${key}\` | ${kind} | \`${fallback}\` | ${(value.description ?? "").replaceAll("|", "\\|")} |`,
      ];
    });
  return ["| value | type | default | meaning |", "|---|---|---|---|", ...rows(schema, "")].join("\n");
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return line === "" ? lines : [...lines, line];
}
