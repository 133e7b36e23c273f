// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import packageJSON from "../../package.json" with { type: "json" };

/** Prints the version as `text` (default) or `json`; the fields are Spegel's, with Node in Go's place. */
export async function printVersion(flags: readonly string[]): Promise<void> {
  const inline = flags.find((flag) => flag.startsWith("--format="))?.slice("--format=".length);
  const format = inline ?? (flags[0] === "--format" ? flags[1] : "text");
  const commit = process.env["SPEGEL_BUILD_COMMIT"] ?? "unknown";
  if (format === "text") {
    process.stdout.write(`spegel version ${packageJSON.version} ${commit}\n`);
  } else if (format === "json") {
    const document = {
      build: { nodeVersion: process.version, version: packageJSON.version, commit },
      runtime: { distro: await distribution(), os: process.platform, arch: process.arch },
    };
    process.stdout.write(`${JSON.stringify(document)}\n`);
  } else {
    process.stderr.write(`spegel: --format must be text or json, not "${String(format).slice(0, 40)}"\n`);
    process.exitCode = 1;
  }
}

async function distribution(): Promise<string> {
  const text = await readFile("/etc/os-release", "utf8").catch(() => "");
  return /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(text)?.[1] ?? "unknown";
}
