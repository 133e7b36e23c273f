// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { packPrefixes } from "./build-plugins.ts";
import { ROOT } from "./sources.ts";

const importText = async (text: string): Promise<unknown> => {
  const loaded = (await import(`data:text/javascript,${encodeURIComponent(text)}`)) as { default: unknown };
  return loaded.default;
};

describe("packPrefixes", () => {
  it("gives the same number for each prefix of the installed DHT", async () => {
    const path = "node_modules/@libp2p/kad-dht/dist/src/routing-table/generated-prefix-list.js";
    const text = readFileSync(`${ROOT}/${path}`, "utf8");
    const expected = (await importText(text)) as number[];
    const packed = (await importText(packPrefixes(text))) as Uint32Array;
    assert.equal(expected.length, 65_536);
    assert.deepEqual(Array.from(packed), expected);
  });

  it("refuses a list of another form, and numbers that do not fit", () => {
    assert.throws(() => packPrefixes("export const list = [1]"), /another form/);
    assert.throws(() => packPrefixes(""), /another form/);
    assert.throws(() => packPrefixes("export default [1, 16777216]"), /more than three bytes/);
  });
});
