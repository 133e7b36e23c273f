// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Metafile } from "esbuild";
import { judgeBundle } from "./budget.ts";
import type { Program } from "./programs.ts";

const PROGRAM: Program = {
  folder: "spegel",
  name: "spegel",
  form: "executable",
  nodeOptions: [],
  forbidden: ["typebox", "@libp2p/*"],
  maxBytes: 1_000,
};

/** A metafile: each file with what it imports and its bytes in the bundle; the first one is the entry. */
function metafile(files: Readonly<Record<string, { imports?: string[]; bytes: number }>>): Metafile {
  const names = Object.keys(files);
  const inputs = names.map((name) => {
    const imports = (files[name]?.imports ?? []).map((path) => ({ path, kind: "import-statement" as const }));
    return [name, { bytes: 1, imports }] as const;
  });
  const sizes = names.map((name) => [name, { bytesInOutput: files[name]?.bytes ?? 0 }] as const);
  const bytes = sizes.reduce((total, [, size]) => total + size.bytesInOutput, 0);
  const output = {
    bytes,
    inputs: Object.fromEntries(sizes),
    imports: [],
    exports: [],
    entryPoint: names[0] ?? "",
  };
  return { inputs: Object.fromEntries(inputs), outputs: { "out.mjs": output } };
}

describe("judgeBundle", () => {
  it("adds up bytes by dependency and by folder of ours", () => {
    const { parts, bytes, problems } = judgeBundle(
      PROGRAM,
      metafile({
        "cmd/spegel/main.ts": { bytes: 10 },
        "pkg/mirror/pull.ts": { bytes: 20 },
        "pkg/mirror/index.ts": { bytes: 5 },
        "node_modules/a/node_modules/@scope/b/index.js": { bytes: 300 },
      }),
    );
    assert.deepEqual(parts, [
      ["@scope/b", 300],
      ["pkg/mirror", 25],
      ["cmd/spegel", 10],
    ]);
    assert.equal(bytes, 335);
    assert.deepEqual(problems, []);
  });

  it("names a forbidden dependency and the way to it, by name or scope", () => {
    const { problems } = judgeBundle(
      PROGRAM,
      metafile({
        "cmd/spegel/main.ts": { bytes: 1, imports: ["pkg/a/index.ts"] },
        "pkg/a/index.ts": {
          bytes: 1,
          imports: ["node_modules/typebox/x.js", "node_modules/@libp2p/tls/y.js"],
        },
        "node_modules/typebox/x.js": { bytes: 7 },
        "node_modules/@libp2p/tls/y.js": { bytes: 9 },
      }),
    );
    assert.deepEqual(problems, [
      "holds @libp2p/tls (9 bytes), reached through cmd/spegel/main.ts -> pkg/a/index.ts -> node_modules/@libp2p/tls/y.js",
      "holds typebox (7 bytes), reached through cmd/spegel/main.ts -> pkg/a/index.ts -> node_modules/typebox/x.js",
    ]);
  });

  it("lets a forbidden dependency pass of which nothing is left in the bundle", () => {
    const files = { "cmd/spegel/main.ts": { bytes: 1 }, "node_modules/typebox/x.js": { bytes: 0 } };
    assert.deepEqual(judgeBundle(PROGRAM, metafile(files)).problems, []);
  });

  it("reports a bundle that is too large", () => {
    const { problems } = judgeBundle(PROGRAM, metafile({ "cmd/spegel/main.ts": { bytes: 1_001 } }));
    assert.deepEqual(problems, ["has 1001 bytes, more than 1000"]);
  });
});
