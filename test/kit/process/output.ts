// SPDX-License-Identifier: Apache-2.0
import type { Readable } from "node:stream";

const DEFAULT_MAX_LINES = 100_000;
// A longer line is cut here; the rest of it is dropped.
const MAX_LINE_LENGTH = 64 * 1024;

export interface OutputLine {
  readonly stream: "stdout" | "stderr";
  readonly text: string;
}

/** The lines a program wrote, the newest `maxLines` of them. */
export interface Output {
  readonly lines: readonly OutputLine[];
  /** Follows a stream of the program. `onLine` sees each line as it comes. */
  follow(stream: OutputLine["stream"], source: Readable): void;
  /** Calls `listener` for every later line until the returned value is disposed. */
  listen(listener: (line: OutputLine) => void): Disposable;
  /** The last lines as one text, for error messages. */
  tail(lineCount: number): string;
}

export function createOutput(options: { readonly maxLines?: number } = {}): Output {
  const maxLines = options.maxLines ?? DEFAULT_MAX_LINES;
  const lines: OutputLine[] = [];
  const listeners = new Set<(line: OutputLine) => void>();

  function add(stream: OutputLine["stream"], text: string): void {
    const line = { stream, text: text.slice(0, MAX_LINE_LENGTH) };
    lines.push(line);
    // Dropped in batches: shifting the array for every line would be quadratic.
    if (lines.length > maxLines * 1.1) lines.splice(0, lines.length - maxLines);
    for (const listener of listeners) listener(line);
  }

  return {
    lines,
    follow(stream, source) {
      let rest = "";
      source.setEncoding("utf8");
      source.on("data", (chunk: string) => {
        const parts = (rest + chunk).split("\n");
        rest = (parts.pop() ?? "").slice(0, MAX_LINE_LENGTH);
        for (const part of parts) add(stream, part);
      });
      source.on("end", () => {
        if (rest !== "") add(stream, rest);
        rest = "";
      });
    },
    listen(listener) {
      listeners.add(listener);
      return {
        [Symbol.dispose]() {
          listeners.delete(listener);
        },
      };
    },
    tail: (lineCount) =>
      lines
        .slice(-lineCount)
        .map((line) => line.text)
        .join("\n"),
  };
}
