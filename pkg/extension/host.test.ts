// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { bootstrapperHost } from "./index.ts";

const DOMAIN = "ingress.seed.example.org";

test("the host is the shortened technical ID below the ingress domain", () => {
  const table: [technicalID: string, label: string][] = [
    ["shoot--foo--bar", "spegel-foo--bar"],
    ["shoot-garden-x", "spegel-garden-x"],
    ["shoot--it--shoot--x", "spegel-it--shoot--x"],
    ["custom-id", "spegel-custom-id"],
    [`shoot--p--${"x".repeat(53)}`, `spegel-p--${"x".repeat(53)}`], // 63 characters: the most there may be
    [`shoot--p--${"x".repeat(54)}`, ""],
  ];
  for (const [technicalID, label] of table) {
    const host = bootstrapperHost(technicalID, DOMAIN);
    if (label === "") assert.match(host, /^spegel-[0-9a-f]{10}\.ingress\.seed\.example\.org$/);
    else assert.equal(host, `${label}.${DOMAIN}`);
  }
});

test("any technical ID Gardener can make gives one valid DNS label, and different ones differ", () => {
  const id = fc.stringMatching(/^shoot--[a-z0-9]{1,20}--[a-z0-9]{1,60}$/);
  fc.assert(
    fc.property(id, id, (a, b) => {
      const [label = ""] = bootstrapperHost(a, DOMAIN).split(".");
      assert.match(label, /^spegel-[a-z0-9-]{1,56}$/);
      assert.ok(label.length <= 63);
      if (a !== b) assert.notEqual(bootstrapperHost(a, DOMAIN), bootstrapperHost(b, DOMAIN));
    }),
  );
});

test("a domain or an ID that is none is refused", () => {
  const refused = { code: "EXTENSION_HOST_INVALID" };
  assert.throws(() => bootstrapperHost("shoot--a--b", ""), refused);
  assert.throws(() => bootstrapperHost("shoot--a--b", "exa mple.org"), refused);
  assert.throws(() => bootstrapperHost("shoot--a--b\nx", DOMAIN), refused);
  assert.throws(() => bootstrapperHost("shoot--a--B", DOMAIN), refused);
  assert.throws(() => bootstrapperHost("shoot--a--b", `${"a.".repeat(120)}org`), refused);
});
