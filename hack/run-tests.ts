// SPDX-License-Identifier: Apache-2.0
import { run } from "node:test";
import { inspect } from "node:util";
import { ROOT } from "./sources.ts";

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  /** Tests marked skip or todo. */
  readonly skipped: number;
}

export interface TestRun extends Counts {
  /** One text for each failure and skip, ready to print. */
  readonly notes: readonly string[];
}

export interface RunOptions {
  /** Absolute paths. */
  readonly files: readonly string[];
  readonly concurrency: number;
  readonly timeoutMs: number;
  /** Order of files and tests. */
  readonly seed: number;
  /** Told of each file that ended: its path below the root, and how long it took. */
  readonly onFile?: (file: string, durationMs: number) => void;
}

/** Longest output of one failed file that is shown, from its end. */
const MAX_OUTPUT_CHARS = 8_000;

/**
 * Runs test files, each in its own process, in the random order of `seed`.
 *
 * A file without tests is a failure, and so is one that does not end after its tests: it leaks.
 */
export async function runTests(options: RunOptions): Promise<TestRun> {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const notes: string[] = [];
  const output = new Map<string, string>();
  const failed = new Set<string>();
  const stopped = new AbortController();
  // Every test has its own limit; beyond it and this time nothing comes but from a file that cannot end.
  const watchdog = setTimeout(() => stopped.abort(), options.timeoutMs + 30_000);
  const fail = (file: string, note: string): void => {
    counts.failed++;
    failed.add(file);
    notes.push(note);
  };

  const stream = run({
    files: [...options.files],
    concurrency: options.concurrency,
    timeout: options.timeoutMs,
    randomSeed: options.seed,
    execArgv: ["--experimental-ffi", "--disable-warning=ExperimentalWarning"],
    signal: stopped.signal,
  });
  for await (const event of stream) {
    watchdog.refresh();
    const file = "file" in event.data && event.data.file !== undefined ? event.data.file : "";
    switch (event.type) {
      case "test:stdout":
      case "test:stderr":
        output.set(file, `${output.get(file) ?? ""}${event.data.message}`.slice(-MAX_OUTPUT_CHARS));
        break;
      case "test:pass": {
        const { name, skip, todo, details } = event.data;
        if (details.type === "suite") break;
        const reason = skip ?? todo;
        if (reason !== undefined && reason !== false) {
          counts.skipped++;
          notes.push(
            `skipped: ${place(event.data)} ${name}${typeof reason === "string" ? `: ${reason}` : ""}`,
          );
        } else if (name === file) {
          fail(file, `failed: ${relative(file)} has no tests`);
        } else {
          counts.passed++;
        }
        break;
      }
      case "test:fail": {
        const { name, details } = event.data;
        const error: unknown = details.error;
        // A suite, or a file, fails because of its tests: those are told already.
        if (failureType(error) === "subtestsFailed") break;
        if (name === file && failureType(error) === "testAborted") {
          fail(file, `failed: ${relative(file)} did not end after its tests; what is still open there?`);
          break;
        }
        const title =
          name === file ? `${relative(file)} ended with an error` : `${place(event.data)} ${name}`;
        fail(file, `failed: ${title}\n${indent(describe(error))}`);
        break;
      }
      case "test:summary":
        // One for each file, then one without a file for the whole run.
        if (file !== "") options.onFile?.(relative(file), event.data.duration_ms);
        break;
      default:
        break;
    }
  }
  clearTimeout(watchdog);
  for (const file of failed) {
    const text = output.get(file)?.trimEnd();
    if (text !== undefined) notes.push(`output of ${relative(file)}:\n${indent(text)}`);
  }
  return { ...counts, notes };
}

function relative(file: string): string {
  return file.startsWith(`${ROOT}/`) ? file.slice(ROOT.length + 1) : file;
}

function place(data: { readonly file?: string | undefined; readonly line?: number | undefined }): string {
  return `${relative(data.file ?? "?")}:${data.line ?? 1}`;
}

function failureType(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("failureType" in error)) return undefined;
  return typeof error.failureType === "string" ? error.failureType : undefined;
}

function describe(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (!(cause instanceof Error)) return inspect(cause);
  const stack = (cause.stack ?? cause.message).split("\n").filter((line) => !/\(?node:internal\//.test(line));
  const nested = cause.cause === undefined ? "" : `\n[cause] ${inspect(cause.cause, { depth: 2 })}`;
  return `${stack.join("\n").slice(0, MAX_OUTPUT_CHARS)}${nested}`;
}

function indent(text: string): string {
  return text.replace(/^/gm, "    ");
}
