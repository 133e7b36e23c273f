// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkLicenceLine, checkPlaces, needsLicenceLine } from "./files.ts";

describe("checks on files", () => {
  it("want the licence line first, or second after #!", () => {
    assert.equal(checkLicenceLine("// SPDX-License-Identifier: Apache-2.0\ncode\n"), undefined);
    assert.equal(checkLicenceLine("#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n"), undefined);
    assert.match(checkLicenceLine("\n// SPDX-License-Identifier: Apache-2.0\n") ?? "", /no SPDX/);
    assert.match(checkLicenceLine("") ?? "", /no SPDX/);
    assert.deepEqual(
      ["pkg/a/b.ts", "hack/setup.sh", "Makefile", ".ci/run", "pkg/a/gen/b.ts", "README.md"].map(
        needsLicenceLine,
      ),
      [true, true, true, true, false, false],
    );
  });

  it("find paths of one machine, its name, and hosts of package registries, by line", () => {
    const home = `/${"home"}/someone/code`;
    assert.deepEqual(checkPlaces(`fine\nsee ${home}\n`, "builder-7f3a"), ["2: holds a path of one machine"]);
    assert.deepEqual(checkPlaces("runs on builder-7f3a", "builder-7f3a"), [
      "1: holds the name of one machine",
    ]);
    assert.deepEqual(checkPlaces(`https://registry.${"npm"}js.org/x`, "host-name"), [
      "1: holds the host of a package registry",
    ]);
    assert.deepEqual(
      checkPlaces("/home/nonroot/x /opt/bin/spegel registry-1.docker.io localhost", "localhost"),
      [],
    );
  });
});
