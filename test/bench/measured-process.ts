// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

/** A program under measurement, pinned to processors. Disposing ends it, by its process id. */
export interface MeasuredProcess extends AsyncDisposable {
  readonly child: ChildProcess;
  /** Processor seconds used so far, with children. */
  cpuSeconds(): number;
  /** Peak resident memory since `resetPeak`, with children. */
  peakMib(): number;
  resetPeak(): void;
}

export function startPinned(cpu: string, command: readonly string[]): MeasuredProcess {
  const child = spawn("taskset", ["-c", cpu, ...command], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const kill = (): void => void child.kill("SIGTERM");
  process.once("exit", kill); // also when the bench itself is interrupted
  const family = (): number[] => (child.pid === undefined ? [] : withChildren(child.pid));
  return {
    child,
    cpuSeconds: () => sum(family().map(cpuSecondsOf)),
    peakMib: () => sum(family().map(peakMibOf)),
    resetPeak: () => {
      for (const pid of family()) writeFileSync(`/proc/${pid}/clear_refs`, "5");
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
      await ended;
      process.off("exit", kill);
    },
  };
}

/** What a program printed until it ended. */
export async function output(child: ChildProcess): Promise<string> {
  let text = "";
  child.stdout?.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  await once(child, "close");
  return text;
}

/** The first line a program prints. */
export async function firstLine(child: ChildProcess): Promise<string> {
  let text = "";
  for await (const part of child.stdout?.setEncoding("utf8").iterator({ destroyOnReturn: false }) ?? []) {
    text += part as string;
    if (text.includes("\n")) return text.slice(0, text.indexOf("\n"));
  }
  throw new Error(`the program ended before it was ready: ${text}`);
}

function withChildren(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean).map(Number),
  );
  return [pid, ...children.flatMap(withChildren)];
}

/** Processor seconds that the threads of a process used. */
export function cpuSecondsOf(pid: number): number {
  const tasks = readdirSync(`/proc/${pid}/task`);
  return (
    sum(
      tasks.map((task) => Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0])),
    ) / 1e9
  );
}

function peakMibOf(pid: number): number {
  const kib = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib ?? 0) / 1024;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
