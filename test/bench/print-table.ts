// SPDX-License-Identifier: Apache-2.0
import { cpus, loadavg } from "node:os";

/** Prints rows, the first with the names of the columns, under a line with what the figures were taken beside. */
export function printTable(title: string, rows: readonly (readonly string[])[]): void {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  const load = loadavg()
    .map((each) => each.toFixed(1))
    .join(" ");
  console.log(`${title}; ${cpus().length} processors, load average ${load}`);
  for (const row of rows) console.log(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
}
