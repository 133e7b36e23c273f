// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { it } from "node:test";
import { capture } from "./process.ts";

it("generated files are what the schemas say", async () => {
  const { code, output } = await capture(process.execPath, ["hack/generate.ts", "--check"]);
  assert.equal(code, 0, output);
  assert.match(output, /generate: (?:[2-9][0-9]|[1-9][0-9]{2}) files, 0 stale/);
});
