// SPDX-License-Identifier: Apache-2.0
/** The page of traps answers each one, and the tests that it names exist. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";

const TRAP_COUNT = 43;
/** A link to a test file, and the names of tests in it, or their beginnings, in quotes. */
const EVIDENCE = /\[[^\]]+\]\(([^)]+\.test\.ts)\)((?: ?,? "[^"]+")+)/g;

const rows = readFileSync("docs/traps.md", "utf8")
  .split("\n")
  .filter((line) => line.startsWith("| T-"))
  .map((line) => {
    const [trap = "", , answer = "", shownBy = ""] = line.slice(2, -1).split(" | ");
    const evidence = [...shownBy.matchAll(EVIDENCE)].flatMap(([, file = "", names = ""]) =>
      [...names.matchAll(/"([^"]+)"/g)].map(([, name = ""]) => ({ file: join("docs", file), name })),
    );
    return { trap, answer, evidence };
  });

describe("the page of traps", () => {
  it("has one answer for each trap, in order", () => {
    assert.deepEqual(
      rows.map(({ trap }) => trap),
      Array.from({ length: TRAP_COUNT }, (_, index) => `T-${index + 1}`),
    );
    for (const { trap, answer } of rows) assert.match(answer, /^(done|not ours|open)\b/, trap);
  });

  it("names a test for everything that is done", () => {
    for (const { trap, answer, evidence } of rows)
      if (answer.startsWith("done")) assert.ok(evidence.length > 0, `${trap} names no test`);
  });

  it("names only tests that exist", () => {
    for (const { trap, evidence } of rows)
      for (const { file, name } of evidence)
        assert.ok(readFileSync(file, "utf8").includes(name), `${trap}: ${file} has no test "${name}"`);
  });
});
