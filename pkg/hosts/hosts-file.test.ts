// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parse, type TomlTable } from "smol-toml";
import { formatHostsFile, parseHostsFile } from "./hosts-file.ts";

const NO_TARGETS = { targets: [], resolveTags: true };

const text = fc.string({ unit: "binary", maxLength: 20 }).filter((each) => each.isWellFormed());
const url = fc.oneof(fc.webUrl(), fc.constantFrom("quay.io", "it's", "a\nb", ""));
const options = fc.record(
  {
    capabilities: fc.uniqueArray(fc.constantFrom("pull", "resolve", "push")),
    ca: fc.oneof(text, fc.array(text)),
    client: fc.oneof(text, fc.array(fc.oneof(text, fc.tuple(text, text)))),
    skip_verify: fc.boolean(),
    override_path: fc.boolean(),
    dial_timeout: fc.constantFrom("", "200ms", "1.5s", "1m30s"),
    header: fc.dictionary(text, fc.oneof(text, fc.array(text)), { maxKeys: 3, noNullPrototype: true }),
  },
  { requiredKeys: [], noNullPrototype: true },
);
const isSafeKey = (key: string): boolean =>
  !["__proto__", "constructor"].includes(key) && !/^[0-9]+$/.test(key);
const hosts = fc
  .uniqueArray(fc.tuple(url, options), { selector: ([each]) => each, maxLength: 4 })
  .filter((all) =>
    all.every(([each, { header = {} }]) => isSafeKey(each) && Object.keys(header).every(isSafeKey)),
  );

describe("the text of a hosts.toml", () => {
  it("says what was read, whatever strings and options are in it", async () => {
    await fc.assert(
      fc.asyncProperty(hosts, options, async (all, root) => {
        fc.pre(Object.keys(root.header ?? {}).every(isSafeKey));
        const file = { hosts: all as [string, TomlTable][], root: root as TomlTable };
        const again = await parseHostsFile(formatHostsFile(NO_TARGETS, undefined, file));
        // Tables have no prototype when they come from a file.
        assert.deepEqual(structuredClone(again), file);
      }),
    );
  });

  it("keeps values that containerd does not know", async () => {
    const document =
      "a = 1\nb = 1.5\nc = inf\nd = -inf\ne = nan\nf = 9007199254740993\ng = 1979-05-27\nh = [{ x = 1 }, { y = 'z' }]";
    const file = await parseHostsFile(document);
    assert.ok("hosts" in file);
    const again = formatHostsFile(NO_TARGETS, undefined, file);
    const bigints = { integersAsBigInt: "asNeeded" } as const;
    assert.deepEqual(parse(again, bigints), parse(document, bigints));
  });

  it("is read in the order of first mention, with quotes of any kind", async () => {
    const file = await parseHostsFile(
      `[host."https://b"]\n[host.'https://a'.header]\nx = "y"\n["host".c]\n[host."https://\\u0061.x"]`,
    );
    assert.ok("hosts" in file);
    assert.deepEqual(
      file.hosts.map(([each]) => each),
      ["https://b", "https://a", "c", "https://a.x"],
    );
  });

  for (const wrong of [
    "server = 1",
    "capabilities = 'pull'",
    "capabilities = ['fetch']",
    "ca = 1",
    "ca = [1]",
    "client = [['a']]",
    "client = [['a', 'b', 'c']]",
    "skip_verify = 'yes'",
    "override_path = 1",
    "header = 1",
    "[header]\nx = 1",
    "dial_timeout = 1",
    "dial_timeout = 'soon'",
    "host = 1",
    "[[host]]",
    "a = 1\na = 2",
  ]) {
    it(`is refused as containerd refuses it: ${wrong.replace("\n", " ")}`, async () => {
      const file = await parseHostsFile(wrong);
      assert.ok("reason" in file);
      assert.notEqual(file.reason, "");
    });
  }
});
