// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkImports, importsOf } from "./imports.ts";

const MANIFEST = {
  imports: {
    "#mirror": "./pkg/mirror/index.ts",
    "#swarm": "./pkg/swarm/index.ts",
    "#store": "./pkg/store/index.ts",
    "#store/testing": "./pkg/store/testing.ts",
    "#http": "./pkg/http/index.ts",
    "#kit/registry": "./test/kit/registry/index.ts",
    "#log": "./pkg/log/index.ts",
    "#errors": "./pkg/errors/index.ts",
    "#api/config": "./api/config/v1alpha1/index.ts",
  },
  dependencies: { libp2p: "1", ajv: "1" },
  devDependencies: { "fast-check": "1" },
};

/** The problems of one file with one import, without its name. */
function judge(file: string, specifier: string): string[] {
  const { problems } = checkImports([file], MANIFEST, () => `import { x } from "${specifier}";\n`);
  return problems.map((problem) => problem.slice(`${file}: ${specifier} `.length));
}

describe("checkImports", () => {
  const allowed: readonly [string, string][] = [
    ["cmd/spegel/wire.ts", "#mirror"],
    ["cmd/spegel/wire.ts", "#api/config"],
    ["pkg/mirror/pull.ts", "#store"],
    ["pkg/mirror/pull.ts", "#http"],
    ["pkg/mirror/pull.ts", "./steps/open.ts"],
    ["pkg/mirror/steps/open.ts", "../pull.ts"],
    ["pkg/mirror/pull.test.ts", "#store/testing"],
    ["pkg/mirror/pull.test.ts", "#kit/registry"],
    ["pkg/mirror/pull.test.ts", "fast-check"],
    ["pkg/http/server.ts", "#log"],
    ["pkg/config/decoder.ts", "ajv"],
    ["pkg/http/server.ts", "node:net"],
    ["pkg/store/index.ts", "#errors"],
    ["pkg/store/index.ts", "#http"],
    ["cmd/spegel/version.ts", "../../package.json"],
    ["pkg/swarm/host.ts", "libp2p"],
    ["test/integration/pull.test.ts", "../../cmd/spegel/wire.ts"],
    ["test/integration/pull.test.ts", "#mirror"],
    ["api/config/v1alpha1/index.ts", "./gen/validate.js"],
  ];
  for (const [file, specifier] of allowed) {
    it(`lets ${file} import ${specifier}`, () => assert.deepEqual(judge(file, specifier), []));
  }

  const refused: readonly [string, string, RegExp][] = [
    ["pkg/mirror/pull.ts", "#swarm", /is a domain; mirror \(domain\) may not/],
    ["pkg/http/server.ts", "#mirror", /is a domain/],
    ["pkg/http/server.ts", "#store", /is a contract/],
    ["pkg/http/server.ts", "#api/config", /is a api/],
    ["pkg/log/index.ts", "#http", /is a leaf/],
    ["pkg/errors/index.ts", "#log", /is a leaf/],
    ["pkg/store/index.ts", "#mirror", /is a domain/],
    ["pkg/mirror/pull.ts", "#store/testing", /is for tests/],
    ["pkg/mirror/pull.ts", "#kit/registry", /is for tests/],
    ["pkg/mirror/pull.ts", "#mirror", /own package/],
    ["pkg/mirror/pull.ts", "#unknown", /not in the imports/],
    ["pkg/mirror/pull.ts", "../swarm/host.ts", /leaves pkg\/mirror/],
    ["pkg/mirror/pull.ts", "./pull.js", /no \.ts/],
    ["pkg/mirror/pull.ts", "libp2p", /home in swarm/],
    ["pkg/mirror/pull.ts", "libp2p/deep", /home in swarm/],
    ["pkg/mirror/pull.ts", "left-pad", /not in package\.json/],
    ["pkg/mirror/pull.ts", "fast-check", /development dependency/],
    ["pkg/mirror/pull.ts", "fs", /node:fs/],
    ["pkg/log/index.ts", "../../package.json", /leaves pkg\/log/],
    ["cmd/spegel/main.ts", "../bootstrapper/wire.ts", /leaves cmd\/spegel/],
  ];
  for (const [file, specifier, reason] of refused) {
    it(`refuses ${specifier} in ${file}`, () => {
      const problems = judge(file, specifier);
      assert.equal(problems.length, 1);
      assert.match(problems[0] ?? "", reason);
    });
  }

  it("reports a folder and a dependency that the table does not know", () => {
    const manifest = { ...MANIFEST, dependencies: { "left-pad": "1" } };
    const { problems } = checkImports(["pkg/novel/index.ts"], manifest, () => "");
    assert.deepEqual(problems, [
      "pkg/novel: missing in the table of hack/imports.ts",
      "package.json: left-pad has no home in hack/imports.ts",
    ]);
  });
});

describe("importsOf", () => {
  it("finds each form once and nothing in comments or text", () => {
    const source = [
      'import "./a.ts";',
      'import type { B } from "./b.ts";',
      'import {\n  type C,\n  c,\n} from "./c.ts";',
      'export { d } from "./d.ts";',
      'export * as e from "./e.ts";',
      'const f = await import("./f.ts");',
      '// import { x } from "./comment.ts";',
      ' * import("./comment.ts")',
      "const text = 'import { x } from \"./text.ts\"';",
      'export const n = 1;\nconst from = "./value.ts";',
    ].join("\n");
    assert.deepEqual(importsOf(source), ["./a.ts", "./b.ts", "./c.ts", "./d.ts", "./e.ts", "./f.ts"]);
  });
});
