// SPDX-License-Identifier: Apache-2.0

/** One family of metrics in Prometheus' text format 0.0.4. */
export interface MetricFamily {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  /** `name{labels}` of each sample, as written. */
  readonly series: readonly string[];
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const LABEL = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\[\\\\"n])*"';
const SAMPLE = new RegExp(`^(${NAME})(\\{(?:${LABEL}(?:,${LABEL})*)?\\})? (\\S+)$`);
const COMMENT = new RegExp(`^# (HELP|TYPE) (${NAME}) (.+)$`);
const TYPES = ["counter", "gauge", "histogram", "summary", "untyped"];

/**
 * Reads metrics as strictly as node-exporter's textfile collector and `promtool check metrics` together: every
 * family once, with help before type before samples, no series twice, no timestamps, a line break at the end.
 *
 * @throws Error naming the line
 */
export function parseExposition(text: string): readonly MetricFamily[] {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const families: { name: string; type: string; help: string; series: string[] }[] = [];
  const seen = new Set<string>();
  let help: { readonly name: string; readonly text: string } | undefined;
  for (const [index, line] of text.slice(0, -1).split("\n").entries()) {
    const fail = (message: string): Error => new Error(`line ${index + 1}: ${message}: ${line}`);
    const [, kind, about = "", rest = ""] = COMMENT.exec(line) ?? [];
    if (kind === "HELP") {
      if (help !== undefined || families.some(({ name }) => name === about))
        throw fail("a family that comes twice");
      help = { name: about, text: rest };
    } else if (kind === "TYPE") {
      if (help?.name !== about) throw fail("a type without help");
      if (!TYPES.includes(rest)) throw fail("an unknown type");
      families.push({ name: about, type: rest, help: help.text, series: [] });
      help = undefined;
    } else {
      const [, name = "", labels = "", value = ""] = SAMPLE.exec(line) ?? [];
      const family = families.at(-1);
      if (name === "" || help !== undefined) throw fail("no sample");
      if (family === undefined || !belongs(name, family)) throw fail("a sample outside of its family");
      if (!/^([+-]?Inf|NaN)$/.test(value) && !Number.isFinite(Number(value))) throw fail("no number");
      if (seen.has(name + labels)) throw fail("a series that comes twice");
      if (family.type === "counter" && !family.name.endsWith("_total"))
        throw fail("a counter without _total");
      seen.add(name + labels);
      family.series.push(name + labels);
    }
  }
  if (help !== undefined) throw new Error(`${help.name} has help and nothing else`);
  return families;
}

function belongs(sample: string, family: { readonly name: string; readonly type: string }): boolean {
  const suffixes = { histogram: ["_bucket", "_sum", "_count"], summary: ["", "_sum", "_count"] }[
    family.type
  ] ?? [""];
  return suffixes.some((suffix) => sample === family.name + suffix);
}
