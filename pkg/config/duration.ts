// SPDX-License-Identifier: Apache-2.0
import { ConfigError } from "./errors.ts";

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Parses Go's duration syntax (`20ms`, `1m30s`) to milliseconds. @throws ConfigError CONFIG_DURATION_INVALID */
export function parseDuration(text: string, path = "duration"): number {
  const parts = [...text.matchAll(/([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map((part) => part[0]).join("") !== text) {
    throw new ConfigError({
      code: "CONFIG_DURATION_INVALID",
      problems: [{ path, message: `"${text.slice(0, 40)}" is not a duration such as 20ms, 3s or 1m30s` }],
    });
  }
  return parts.reduce((sum, part) => sum + Number(part[1]) * (UNIT_MS[part[2] as string] as number), 0);
}
