// SPDX-License-Identifier: Apache-2.0
/**
 * The one test command: `node hack/run-tiers.ts [tier...]`, all tiers by default.
 *
 * A tier that cannot run here says why; with CI=true that is a failure, and so is a single skipped test.
 * SEED=<n> repeats the order of an earlier run. The last line is `N passed, N failed, N skipped`.
 */
import { describeCheck, isPassed, runChecks } from "./check.ts";
import { captureOk, elapsed } from "./process.ts";
import { type Counts, runTests } from "./run-tests.ts";
import { listFiles, ROOT } from "./sources.ts";
import { prepareTier, TIERS, type Tier } from "./tiers.ts";

const NONE: Counts = { passed: 0, failed: 0, skipped: 0 };
const isCI = process.env["CI"] === "true";

/** Tells what a tier could not do; under CI that ends in a failure. */
const gaps: string[] = [];

/** Files that take this long are told as they end: progress of the long tiers. */
const SLOW_FILE_MS = 5_000;

/** First lines of what failed, told again at the end: a long log is read from there. */
const failures: string[] = [];

async function runStatic(): Promise<Counts> {
  const results = await runChecks();
  console.log(results.map(describeCheck).join("\n"));
  const passed = results.filter(isPassed).length;
  return { passed, failed: results.length - passed, skipped: 0 };
}

async function runTier(tier: Tier, seed: number): Promise<Counts> {
  const files = listFiles().filter((file) => tier.files.test(file));
  if (files.length === 0) {
    console.log("  no test files yet");
    if (tier.isRequired) gaps.push(`${tier.name} has no test files`);
    return NONE;
  }
  const reason = prepareTier(tier);
  if (reason !== undefined) {
    console.log(`SKIPPED ${tier.name}: ${reason}`);
    gaps.push(`${tier.name} was skipped: ${reason}`);
    return NONE;
  }
  if (tier.needsBuild) await build();
  const { notes, ...counts } = await runTests({
    files: files.map((file) => `${ROOT}/${file}`),
    concurrency: tier.concurrency,
    timeoutMs: tier.timeoutMs,
    seed,
    onFile: (file, durationMs) => {
      if (durationMs >= SLOW_FILE_MS) console.log(`  ${file} took ${(durationMs / 1000).toFixed(0)} s`);
    },
  });
  for (const note of notes) console.log(note.replace(/^/gm, "  "));
  failures.push(
    ...notes.filter((note) => note.startsWith("failed: ")).map((note) => `${tier.name} ${firstLine(note)}`),
  );
  if (counts.passed + counts.failed === 0) gaps.push(`${tier.name} ran no test`);
  if (counts.skipped > 0) gaps.push(`${tier.name} skipped ${counts.skipped} tests`);
  console.log(`  ${files.length} files`);
  return counts;
}

let isBuilt = false;
async function build(): Promise<void> {
  if (isBuilt) return;
  const started = performance.now();
  await captureOk(process.execPath, ["--disable-warning=ExperimentalWarning", "hack/build.ts"]);
  console.log(`  built dist/ in ${elapsed(started)}`);
  isBuilt = true;
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0] ?? "";
}

function sum(all: readonly Counts[]): Counts {
  return {
    passed: all.reduce((total, each) => total + each.passed, 0),
    failed: all.reduce((total, each) => total + each.failed, 0),
    skipped: all.reduce((total, each) => total + each.skipped, 0),
  };
}

function describeCounts({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

const known = ["static", ...TIERS.map((tier) => tier.name)];
const wanted = process.argv
  .slice(2)
  .flatMap((argument) => argument.split(/[\s,]+/))
  .filter((name) => name !== "");
const unknown = wanted.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  console.error(`test: no tier ${unknown.join(", ")}; there are ${known.join(", ")}`);
  process.exit(2);
}

const started = performance.now();
const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32)) >>> 0;
console.log(`test: node ${process.version}, seed ${seed} (SEED=${seed} repeats this order)`);
const all: Counts[] = [];
for (const name of known.filter((each) => wanted.length === 0 || wanted.includes(each))) {
  const tierStarted = performance.now();
  const tier = TIERS.find((each) => each.name === name);
  console.log(`${name}: ${tier?.about ?? "the checks of make check"}`);
  let counts: Counts;
  try {
    counts = tier === undefined ? await runStatic() : await runTier(tier, seed);
  } catch (error) {
    console.log(`  failed: ${error instanceof Error ? error.message : String(error)}`);
    counts = { ...NONE, failed: 1 };
    failures.push(`${name} did not run to its end`);
  }
  all.push(counts);
  console.log(`${name}: ${describeCounts(counts)} in ${elapsed(tierStarted)}`);
}

const total = sum(all);
for (const failure of failures) console.log(failure);
for (const gap of gaps) console.log(`${isCI ? "FAILED (CI=true)" : "note"}: ${gap}`);
if (total.failed > 0 || (isCI && gaps.length > 0)) process.exitCode = 1;
console.log(`test: ${elapsed(started)}`);
console.log(describeCounts(total));
