// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The folder of package.json, without a slash at the end. */
export const ROOT: string = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");

/** Every file that git tracks or would track, relative to the root, sorted. Never empty. */
export function listFiles(): string[] {
  const output = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 64 << 20,
  });
  const files = [...new Set(output.split("\0"))].filter(
    (file) => file !== "" && existsSync(`${ROOT}/${file}`),
  );
  if (files.length === 0) throw new Error("git lists no files; is this a clone of the project?");
  return files.sort();
}

/** True for TypeScript that people write: not generated, and inside the folders that the checkers cover. */
export function isSource(file: string): boolean {
  return /^(cmd|pkg|api|hack|test)\/.*\.ts$/.test(file) && !isGenerated(file);
}

export function isGenerated(file: string): boolean {
  return file.split("/").includes("gen");
}

/** Test files, kits included: what may use the testing entry points and the development dependencies. */
export function isTest(file: string): boolean {
  return (
    file.endsWith(".test.ts") ||
    file.endsWith("/testing.ts") ||
    file.includes("/testing/") ||
    file.startsWith("test/")
  );
}
