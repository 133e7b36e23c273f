// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseExposition } from "./exposition.ts";

const GOOD = `# HELP a_total Requests.
# TYPE a_total counter
a_total{x="y",z="a\\"b"} 1
a_total 2
# HELP b_seconds Time.
# TYPE b_seconds histogram
b_seconds_bucket{le="+Inf"} 1
b_seconds_sum 0.5
b_seconds_count 1
`;

describe("parseExposition", () => {
  it("reads families with their samples", () => {
    assert.deepEqual(
      parseExposition(GOOD).map(({ name, type, series }) => [name, type, series.length]),
      [
        ["a_total", "counter", 2],
        ["b_seconds", "histogram", 3],
      ],
    );
  });

  it("refuses what breaks a scrape", () => {
    const bad: Readonly<Record<string, string>> = {
      "cut in the middle": GOOD.slice(0, -3),
      "a timestamp": GOOD.replace("a_total 2", "a_total 2 1700000000000"),
      "a family twice": GOOD + GOOD,
      "a series twice": GOOD.replace("a_total 2", "a_total 2\na_total 3"),
      "no type": GOOD.replace("# TYPE a_total counter\n", ""),
      "no help": GOOD.replace("# HELP b_seconds Time.\n", ""),
      "a foreign sample": GOOD.replace("b_seconds_sum", "c_sum"),
      "no number": GOOD.replace("0.5", "half"),
      "an open label": GOOD.replace('x="y"', 'x="y'),
      "an empty line": GOOD.replace("a_total 2\n", "a_total 2\n\n"),
      "a counter without _total": GOOD.replaceAll("a_total", "a_count"),
      "an unknown type": GOOD.replace("counter", "meter"),
      "help alone": `${GOOD}# HELP c Nothing.\n`,
    };
    for (const [name, text] of Object.entries(bad)) assert.throws(() => parseExposition(text), name);
  });
});
