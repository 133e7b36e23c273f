// SPDX-License-Identifier: Apache-2.0
import type { Settings } from "./command-line.ts";
import { environmentName, flagName } from "./names.ts";

/** The help text of a program's settings: one flag per entry with its environment name and default. */
export function usage(program: string, settings: Settings): string {
  const lines = Object.entries(settings).map(([key, setting]) => {
    const value =
      setting.type === "boolean"
        ? ""
        : ` ${setting.enum?.join("|") ?? (setting.type ?? "value").toUpperCase()}`;
    const isEmpty =
      setting.default === undefined || (Array.isArray(setting.default) && setting.default.length === 0);
    const defaultText = isEmpty ? "" : ` [default: ${defaultOf(setting.default)}]`;
    return `  --${flagName(key)}${value}\n        ${setting.description ?? ""}${defaultText} [env: ${environmentName(key)}]`;
  });
  return [
    `Usage: ${program} [flags]`,
    "",
    "  --config FILE\n        Settings as YAML or JSON; flags and environment win over it.",
    ...lines,
    "  --help",
    "",
  ].join("\n");
}

function defaultOf(value: unknown): string {
  return Array.isArray(value) ? value.join(",") : typeof value === "string" ? value : JSON.stringify(value);
}
