// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { sleep } from "#async";
import { CodedError } from "#errors";
import { startGuard } from "./guard.ts";
import { createOutput, type Output, type OutputLine } from "./output.ts";

export type ProcessErrorCode =
  | "PROCESS_NOT_STARTED"
  | "PROCESS_EXITED"
  | "PROCESS_NOT_READY"
  | "PROCESS_LINE_MISSING";

export class ProcessError extends CodedError<ProcessErrorCode> {
  override readonly name = "ProcessError";
}

/** When a program counts as started. */
export type Readiness =
  /** It answers GET with a status of 200 to 299. */
  | { readonly kind: "http"; readonly url: string }
  /** It wrote a line that matches. */
  | { readonly kind: "line"; readonly pattern: RegExp }
  /** It exists. */
  | { readonly kind: "spawned" };

export interface StartOptions {
  /** For messages. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Added to this process' environment; `undefined` removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  readonly ready: Readiness;
  /** Default 10000. */
  readonly readyTimeoutMs?: number;
  /** Time between SIGTERM and SIGKILL when it is stopped; default 5000. */
  readonly stopTimeoutMs?: number;
  readonly onLine?: (line: OutputLine) => void;
  readonly signal: AbortSignal;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface RunningProcess extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly output: Output;
  /** Resolves when the program is gone, however that came. */
  readonly exited: Promise<Exit>;
  /** Sends a signal to the program's process group. */
  kill(signal: NodeJS.Signals): void;
  /** SIGTERM, then SIGKILL after `stopTimeoutMs`. Returns how it ended; may be called again. */
  stop(): Promise<Exit>;
  /**
   * The first line, old or new, that matches.
   *
   * @throws ProcessError PROCESS_EXITED, PROCESS_LINE_MISSING after `timeoutMs`
   */
  waitForLine(
    pattern: RegExp,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<string>;
}

const POLL_INTERVAL_MS = 20;
const POLL_TIMEOUT_MS = 1_000;
const TAIL_LINES = 20;

/**
 * Starts a program in a process group of its own and waits until it is ready.
 *
 * @throws ProcessError PROCESS_NOT_STARTED, PROCESS_EXITED, PROCESS_NOT_READY; nothing is left running then
 */
export async function startProcess(options: StartOptions): Promise<RunningProcess> {
  options.signal.throwIfAborted();
  const child = spawn(options.command, [...options.args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    detached: true,
  });
  const running = await adopt(child, options);
  try {
    await waitUntilReady(running, options);
  } catch (error) {
    await running.stop();
    throw error;
  }
  return running;
}

async function adopt(child: ChildProcess, options: StartOptions): Promise<RunningProcess> {
  const { name } = options;
  try {
    await once(child, "spawn");
  } catch (error) {
    throw new ProcessError({
      code: "PROCESS_NOT_STARTED",
      message: `${name} cannot be started`,
      cause: error,
    });
  }
  const pid = child.pid as number;
  const guard = startGuard(pid);
  const output = createOutput();
  if (options.onLine !== undefined) output.listen(options.onLine);
  if (child.stdout !== null) output.follow("stdout", child.stdout);
  if (child.stderr !== null) output.follow("stderr", child.stderr);
  const exited = once(child, "close").then(async ([code, signal]) => {
    await guard.dismiss();
    return { code: code as number | null, signal: signal as NodeJS.Signals | null };
  });

  function kill(signal: NodeJS.Signals): void {
    if (child.exitCode !== null || child.signalCode !== null) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // It ended in this moment; `exited` tells.
    }
  }

  async function stop(): Promise<Exit> {
    kill("SIGTERM");
    const timer = setTimeout(() => kill("SIGKILL"), options.stopTimeoutMs ?? 5_000);
    try {
      return await exited;
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    name,
    pid,
    output,
    exited,
    kill,
    stop,
    waitForLine: (pattern, { timeoutMs, signal }) =>
      waitForLine({ name, output, exited }, { pattern, timeoutMs, signal }),
    async [Symbol.asyncDispose]() {
      await stop();
    },
  };
}

async function waitUntilReady(running: RunningProcess, options: StartOptions): Promise<void> {
  const timeoutMs = options.readyTimeoutMs ?? 10_000;
  if (options.ready.kind === "spawned") return;
  if (options.ready.kind === "line") {
    await running.waitForLine(options.ready.pattern, { timeoutMs, signal: options.signal });
    return;
  }
  await pollUntilAnswered(running, { url: options.ready.url, timeoutMs, signal: options.signal });
}

async function pollUntilAnswered(
  running: RunningProcess,
  options: { readonly url: string; readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<void> {
  const { url, timeoutMs, signal } = options;
  const end = new AbortController();
  void running.exited.then(() => end.abort());
  const deadline = AbortSignal.timeout(timeoutMs);
  const either = AbortSignal.any([signal, deadline, end.signal]);
  while (!either.aborted) {
    if (await answers(url, either)) return;
    await sleep(POLL_INTERVAL_MS, { signal: either }).catch(() => {}); // the loop's condition tells why
  }
  signal.throwIfAborted();
  if (end.signal.aborted) throw exitedEarly(running, await running.exited);
  throw new ProcessError({
    code: "PROCESS_NOT_READY",
    message: `${running.name} did not answer ${url} within ${timeoutMs} ms; it wrote:\n${running.output.tail(TAIL_LINES)}`,
  });
}

async function answers(url: string, signal: AbortSignal): Promise<boolean> {
  try {
    const response = await fetch(url, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(POLL_TIMEOUT_MS)]),
    });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

async function waitForLine(
  running: { readonly name: string; readonly output: Output; readonly exited: Promise<Exit> },
  options: { readonly pattern: RegExp; readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<string> {
  const { output, exited, name } = running;
  const { pattern, timeoutMs, signal } = options;
  signal.throwIfAborted();
  const present = output.lines.find((line) => pattern.test(line.text));
  if (present !== undefined) return present.text;
  const found = Promise.withResolvers<string>();
  using _listener = output.listen((line) => {
    if (pattern.test(line.text)) found.resolve(line.text);
  });
  const onAbort = (): void => found.reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  void exited.then((exit) => found.reject(exitedEarly({ name, output }, exit)));
  const timer = setTimeout(() => {
    const message = `${name} did not write ${pattern} within ${timeoutMs} ms; it wrote:\n${output.tail(TAIL_LINES)}`;
    found.reject(new ProcessError({ code: "PROCESS_LINE_MISSING", message }));
  }, timeoutMs);
  try {
    return await found.promise;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

function exitedEarly(running: { readonly name: string; readonly output: Output }, exit: Exit): ProcessError {
  const how = exit.signal === null ? `with code ${exit.code}` : `by ${exit.signal}`;
  return new ProcessError({
    code: "PROCESS_EXITED",
    message: `${running.name} ended ${how}; it wrote:\n${running.output.tail(TAIL_LINES)}`,
  });
}
