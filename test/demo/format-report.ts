// SPDX-License-Identifier: Apache-2.0
import type { AccountRow } from "./account-sources.ts";

/** The table of what was pulled, and below it where it came from and what that saved. */
export function formatReport(rows: readonly AccountRow[]): string {
  return [...formatTable(rows), "", ...formatTotals(rows)].join("\n");
}

const COLUMNS = ["NODE", "IMAGE", "LAYER", "SOURCE", "BYTES", "TIME"] as const;
const RIGHT_ALIGNED: ReadonlySet<string> = new Set(["BYTES", "TIME"]);

function formatTable(rows: readonly AccountRow[]): readonly string[] {
  const cells = rows
    .toSorted(byPlace)
    .map((row) => [
      row.node,
      row.image,
      `${row.object.kind.padEnd(8)} ${row.object.digest.slice(0, 19)}`,
      sourceOf(row),
      grouped(row.bytes),
      `${Math.round(row.object.durationMs)} ms`,
    ]);
  const table: readonly (readonly string[])[] = [COLUMNS, ...cells];
  const widths = COLUMNS.map((_, column) => Math.max(...table.map((line) => line[column]?.length ?? 0)));
  return table.map((line) =>
    line
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return RIGHT_ALIGNED.has(COLUMNS[column] ?? "") ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd(),
  );
}

const KINDS = ["index", "manifest", "config", "layer"];

// Objects arrive in any order; the same order on every node makes the table readable.
function byPlace(left: AccountRow, right: AccountRow): number {
  return (
    left.node.localeCompare(right.node) ||
    left.image.localeCompare(right.image) ||
    KINDS.indexOf(left.object.kind) - KINDS.indexOf(right.object.kind) ||
    left.object.digest.localeCompare(right.object.digest)
  );
}

function formatTotals(rows: readonly AccountRow[]): readonly string[] {
  const total = sum(rows);
  const bySource = Map.groupBy(rows, sourceOf);
  const lines = [...bySource].map(
    ([source, each]) => `from ${source.padEnd(24)} ${megabytes(sum(each))}  ${percent(sum(each), total)}`,
  );
  const upstream = sum(rows.filter((row) => row.source.kind === "upstream"));
  return [
    ...lines.sort(),
    `${"in all".padEnd(29)} ${megabytes(total)}`,
    "",
    `Without the mirror the registry would have sent ${megabytes(total).trim()}; it sent ${megabytes(upstream).trim()}.`,
    `Saved: ${megabytes(total - upstream).trim()} (${percent(total - upstream, total).trim()}).`,
  ];
}

function sourceOf({ source }: AccountRow): string {
  return source.kind === "upstream" ? "upstream" : `peer ${source.nodes.join(" + ")}`;
}

function sum(rows: readonly AccountRow[]): number {
  return rows.reduce((total, row) => total + row.bytes, 0);
}

function grouped(value: number): string {
  return String(value).replaceAll(/\B(?=(?:\d{3})+$)/g, " ");
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1).padStart(8)} MB`;
}

function percent(part: number, whole: number): string {
  return `${(whole === 0 ? 0 : (part / whole) * 100).toFixed(1).padStart(5)} %`;
}
