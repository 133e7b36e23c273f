// SPDX-License-Identifier: Apache-2.0

/** What a scenario tells while it runs. */
export interface Progress {
  /** A new step begins. */
  step(title: string): void;
  /** Something worth knowing within the step. */
  note(text: string): void;
}

export const silentProgress: Progress = { step: () => {}, note: () => {} };

/** Writes each step with the seconds since the start. Colours only on a terminal that has them. */
export function createProgress(output: NodeJS.WriteStream): Progress {
  const startedMs = performance.now();
  const colours = output.isTTY && (output.hasColors?.() ?? false);
  const bold = (text: string): string => (colours ? `\u001B[1m${text}\u001B[0m` : text);
  const faint = (text: string): string => (colours ? `\u001B[2m${text}\u001B[0m` : text);
  return {
    step(title) {
      const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
      output.write(`${faint(`${seconds.padStart(5)} s`)}  ${bold(title)}\n`);
    },
    note(text) {
      output.write(`${" ".repeat(9)}${text}\n`);
    },
  };
}
