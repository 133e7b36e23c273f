// SPDX-License-Identifier: Apache-2.0
/** Every file that a page links to, and every source file that the page of limits names, exists. */
import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";

const pages = ["README.md", ...globSync("{docs,charts,example}/**/*.md")];

describe("the documentation", () => {
  it("has pages", () => {
    assert.ok(pages.length >= 8, `only ${pages.length} pages found; is this the root of the repository?`);
  });

  for (const page of pages) {
    it(`links only to files that exist: ${page}`, () => {
      const text = readFileSync(page, "utf8");
      const targets = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1] as string);
      const local = targets.filter((target) => !/^[a-z]+:/.test(target) && !target.startsWith("#"));
      const missing = local.filter((target) => !existsSync(join(dirname(page), target.split("#", 1)[0] as string)));
      assert.deepEqual(missing, []);
    });
  }

  it("names only source files that exist on the page of limits", () => {
    const names = [...readFileSync("docs/LIMITS.md", "utf8").matchAll(/`((?:[a-z-]+\/)+[a-z-]+\.ts)`/g)].map((match) => match[1] as string);
    assert.ok(names.length > 20);
    assert.deepEqual(names.filter((name) => !existsSync(name) && !existsSync(join("pkg", name))), []);
  });
});
