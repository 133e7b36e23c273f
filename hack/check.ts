// SPDX-License-Identifier: Apache-2.0
/**
 * The static checks. Each says how many files it saw and fails below a floor: a checker that sees nothing
 * finds nothing. `--fix` formats and repairs what the linter can before it checks.
 */
import { existsSync, readFileSync } from "node:fs";
import { checkLicenceLine, checkPlaces, needsLicenceLine } from "./files.ts";
import { checkImports } from "./imports.ts";
import { checkLockFile } from "./lock-file.ts";
import { capture, elapsed } from "./process.ts";
import { isGenerated, isSource, listFiles, ROOT } from "./sources.ts";
import { TIERS } from "./tiers.ts";

export interface CheckResult {
  readonly name: string;
  /** How many files the checker says it read. */
  readonly seen: number;
  /** Fewer than this is a failure. */
  readonly floor: number;
  /** Empty when all is well. */
  readonly problems: string;
  readonly duration: string;
}

type Seen = Pick<CheckResult, "seen" | "problems">;

const bin = (name: string): string => `${ROOT}/node_modules/.bin/${name}`;
const read = (file: string): string => readFileSync(`${ROOT}/${file}`, "utf8");
/** An editor's or a test's file may be gone since it was listed. */
const isThere = (file: string): boolean => existsSync(`${ROOT}/${file}`);

/** Runs all checks at once. The results come in a fixed order. */
export async function runChecks(): Promise<CheckResult[]> {
  const files = listFiles();
  const sources = files.filter(isSource);
  const typed = files.filter((file) => /^(cmd|pkg|api|hack|test|charts)\/.*\.ts$/.test(file));
  const text = files.filter((file) =>
    /\.(ts|js|mjs|json|jsonc|ya?ml|md|sh|go|tpl|toml|proto)$|Makefile$|^\.ci\/run$/.test(file),
  );
  const timed = async (
    name: string,
    floor: number,
    check: () => Promise<Seen> | Seen,
  ): Promise<CheckResult> => {
    const started = performance.now();
    const { seen, problems } = await check();
    return { name, floor, seen, problems, duration: elapsed(started) };
  };
  return await Promise.all([
    timed("format", sources.length, checkFormat),
    timed("types", typed.length, checkTypes),
    timed("lint", sources.length, checkLint),
    timed("unused", sources.length, checkUnused),
    timed("imports", sources.length, () => {
      const manifest = JSON.parse(read("package.json")) as Parameters<typeof checkImports>[1];
      const { problems, edges } = checkImports(sources.filter(isThere), manifest, read);
      if (edges < sources.length) problems.push(`only ${edges} imports found in ${sources.length} files`);
      return { seen: sources.length, problems: problems.join("\n") };
    }),
    timed("licence", sources.length, () => {
      const checked = files.filter((file) => needsLicenceLine(file) && !isGenerated(file));
      return { seen: checked.length, problems: perFile(checked, (content) => [checkLicenceLine(content)]) };
    }),
    timed("places", sources.length, () => ({
      seen: text.length,
      problems: perFile(text, (content) => checkPlaces(content)),
    })),
    timed("tiers", 1, () => {
      const tests = files.filter((file) => file.endsWith(".test.ts"));
      const lost = tests.filter((file) => TIERS.filter((tier) => tier.files.test(file)).length !== 1);
      return {
        seen: tests.length,
        problems: lost.map((file) => `${file}: is in no tier of hack/tiers.ts, or in two`).join("\n"),
      };
    }),
    timed("lock file", 1, () => ({ seen: 1, problems: perFile(["package-lock.json"], checkLockFile) })),
  ]);
}

/** A line for people: `format     120 files  0.2 s  ok`. */
export function describeCheck(result: CheckResult): string {
  const verdict = isPassed(result) ? "ok" : "FAILED";
  const line = `  ${result.name.padEnd(10)}${String(result.seen).padStart(5)} files  ${result.duration.padStart(6)}  ${verdict}`;
  const few =
    result.seen < result.floor ? [`saw ${result.seen} files, expected at least ${result.floor}`] : [];
  const problems = [...few, ...(result.problems === "" ? [] : [result.problems])];
  return [line, ...problems.map((problem) => problem.replace(/^/gm, "    "))].join("\n");
}

export function isPassed(result: CheckResult): boolean {
  // A floor that came from an empty list of sources must not pass either.
  return result.problems === "" && result.seen >= Math.max(result.floor, 1);
}

function perFile(
  files: readonly string[],
  check: (content: string) => readonly (string | undefined)[],
): string {
  return files
    .filter(isThere)
    .flatMap((file) =>
      check(read(file)).flatMap((problem) => (problem === undefined ? [] : [`${file}: ${problem}`])),
    )
    .join("\n");
}

async function checkFormat(): Promise<Seen> {
  const { code, output } = await capture(bin("biome"), ["ci", "--colors=off", "--reporter=summary"]);
  const seen = Number(/Checked (\d+) files?/.exec(output)?.[1] ?? 0);
  return { seen, problems: code === 0 ? "" : `${output.trim()}\nrepair with: make fix` };
}

const LINTED = ["cmd", "pkg", "api", "hack", "test"];

async function checkLint(): Promise<Seen> {
  const { code, output } = await capture(bin("oxlint"), [
    "--type-aware",
    "--deny-warnings",
    "--format=json",
    ...LINTED,
  ]);
  const report = parseLintReport(output);
  if (report === undefined) return { seen: 0, problems: output };
  const problems = report.diagnostics.map(({ filename, labels, message, code: rule, help }) => {
    const line = labels[0]?.span.line ?? 1;
    return `${filename}:${line} ${rule}: ${message}${help === undefined ? "" : ` (${help})`}`;
  });
  if (code !== 0 && problems.length === 0) problems.push(output);
  return { seen: report.number_of_files, problems: problems.join("\n") };
}

interface LintReport {
  readonly number_of_files: number;
  readonly diagnostics: readonly {
    readonly filename: string;
    readonly message: string;
    readonly code: string;
    readonly help?: string;
    readonly labels: readonly { readonly span: { readonly line: number } }[];
  }[];
}

function parseLintReport(output: string): LintReport | undefined {
  try {
    return JSON.parse(output) as LintReport;
  } catch {
    return undefined;
  }
}

async function checkTypes(): Promise<Seen> {
  const { code, output } = await capture(bin("tsc"), ["--listFiles", "--pretty", "false"]);
  const lines = output.split("\n").filter((line) => line !== "");
  const isListed = (line: string): boolean => line.startsWith("/") && /\.([cm]?tsx?|json)$/.test(line);
  const seen = lines.filter(
    (line) => isListed(line) && !line.endsWith(".json") && !line.includes("/node_modules/"),
  ).length;
  const rest = lines.filter((line) => !isListed(line)).join("\n");
  return { seen, problems: code === 0 ? "" : rest || `ended with ${code}` };
}

async function checkUnused(): Promise<Seen> {
  const { code, output } = await capture(bin("knip"), [
    "--no-progress",
    "--reporter=compact",
    "--reporter=./hack/knip-count.mjs",
  ]);
  const counted = /^knip saw (\d+) files$/m.exec(output);
  const rest = output.replace(/^knip saw \d+ files$/m, "").trim();
  return { seen: Number(counted?.[1] ?? 0), problems: code === 0 ? "" : rest || `ended with ${code}` };
}

async function fix(): Promise<void> {
  const formatted = await capture(bin("biome"), ["check", "--write", "--colors=off"]);
  const linted = await capture(bin("oxlint"), [
    "--type-aware",
    "--fix",
    "--format=unix",
    "cmd",
    "pkg",
    "api",
    "hack",
    "test",
  ]);
  const again = await capture(bin("biome"), ["check", "--write", "--colors=off"]);
  process.stdout.write(`${formatted.output}${linted.output}${again.code === 0 ? "" : again.output}`);
}

if (import.meta.main) {
  if (process.argv.includes("--fix")) await fix();
  const started = performance.now();
  const results = await runChecks();
  console.log(results.map(describeCheck).join("\n"));
  const failed = results.filter((result) => !isPassed(result));
  console.log(
    failed.length === 0
      ? `check: ${results.length} checks passed in ${elapsed(started)}`
      : `check: ${failed.length} of ${results.length} checks FAILED in ${elapsed(started)}: ${failed.map((result) => result.name).join(", ")}`,
  );
  if (failed.length > 0) process.exitCode = 1;
}
