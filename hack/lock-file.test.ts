// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkLockFile, completeLockFile } from "./lock-file.ts";

const lock = (packages: Readonly<Record<string, object>>): string =>
  JSON.stringify({ lockfileVersion: 3, packages: { "": { name: "x" }, ...packages } });

const TOOL = {
  version: "1.2.3",
  integrity: "sha512-x",
  dev: true,
  optionalDependencies: {
    "@tool/darwin-arm64": "1.2.3",
    "@tool/linux-x64-musl": "1.2.3",
    "@tool/linux-x64-gnu": "1.2.3",
  },
};
const HERE = { version: "1.2.3", integrity: "sha512-y", os: ["linux"], cpu: ["x64"], libc: ["glibc"] };

describe("the lock file", () => {
  it("holds no address, and a hash for all that is installed on Linux", () => {
    assert.deepEqual(checkLockFile(lock({ "node_modules/a": { version: "1", integrity: "sha512-x" } })), []);
    assert.match(
      checkLockFile(
        lock({ "node_modules/a": { integrity: "sha512-x", resolved: "https://host/a.tgz" } }),
      ).join(),
      /"resolved"/,
    );
    assert.match(checkLockFile(lock({ "node_modules/a": { version: "1" } })).join(), /no integrity/);
    assert.match(
      checkLockFile(lock({ "node_modules/a": { ...HERE, integrity: undefined } })).join(),
      /no integrity/,
    );
  });

  it("is completed with builds for other systems, so that npm ci accepts it", () => {
    const incomplete = lock({ "node_modules/tool": TOOL, "node_modules/@tool/linux-x64-gnu": HERE });
    assert.equal(checkLockFile(incomplete).filter((problem) => /is missing/.test(problem)).length, 2);
    const completed = completeLockFile(incomplete);
    assert.deepEqual(checkLockFile(completed), []);
    const { packages } = JSON.parse(completed) as { packages: Record<string, object> };
    assert.deepEqual(packages["node_modules/@tool/linux-x64-musl"], {
      version: "1.2.3",
      os: ["linux"],
      cpu: ["x64"],
      libc: ["musl"],
      dev: true,
      optional: true,
    });
    assert.equal(completeLockFile(completed), completed);
  });

  it("is not completed with what this system needs or what names no system", () => {
    assert.throws(() => completeLockFile(lock({ "node_modules/tool": TOOL })), /is for this system/);
    const other = { ...TOOL, optionalDependencies: { "left-pad": "1.0.0" } };
    assert.throws(() => completeLockFile(lock({ "node_modules/tool": other })), /names no system/);
  });
});
