// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import type { Unit } from "#api/gardener";
import { addSpegel, resolveOptions } from "./index.ts";

const osc = addSpegel(
  {
    apiVersion: "extensions.gardener.cloud/v1alpha1",
    kind: "OperatingSystemConfig",
    metadata: { name: "pool" },
    spec: {
      type: "x",
      purpose: "reconcile",
      criConfig: { name: "containerd", containerd: { sandboxImage: "p" } },
    },
  },
  {
    ...resolveOptions({ image: "registry.example/spegel" }),
    bootstrapURL: "https://[2001:db8::1]:443/bootstrap-nodes",
    caBundleSecretName: "bundle",
    clientSecretName: "client",
    registryPort: 5000,
    routerPort: 5001,
    metricsPort: 9090,
  },
);
const units: readonly Unit[] = osc.spec.units ?? [];

/** What systemd says about unit files below `root`; undefined where there is no systemd. */
function verify(root: string): string | undefined {
  const names = units.map((unit) => unit.name);
  const result = spawnSync("systemd-analyze", ["verify", "--man=no", `--root=${root}`, ...names], {
    encoding: "utf8",
  });
  return result.error === undefined ? `${result.stdout}${result.stderr}` : undefined;
}

async function writeRoot(root: string, change: (content: string) => string): Promise<void> {
  const put = async (path: string, text: string, mode: number): Promise<void> => {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
    await chmod(join(root, path), mode);
  };
  for (const unit of units) await put(`/etc/systemd/system/${unit.name}`, change(unit.content ?? ""), 0o644);
  for (const name of ["sysinit", "basic", "shutdown", "multi-user"]) {
    await put(`/usr/lib/systemd/system/${name}.target`, "[Unit]\nDescription=x\n", 0o644);
  }
  await put("/etc/systemd/system/containerd.service", "[Service]\nExecStart=/bin/rm\n", 0o644);
  for (const path of ["/opt/bin/spegel", "/opt/bin/spegel_metrics.sh", "/bin/rm"])
    await put(path, "#!/bin/sh\n", 0o755);
}

describe("the unit files", () => {
  it("have known sections, one setting a line and no doubled setting", () => {
    assert.equal(units.length, 2);
    for (const { content = "" } of units) {
      assert.ok(content.endsWith("\n"));
      const lines = content
        .replaceAll(/ \\\n\s+/g, " ")
        .trimEnd()
        .split("\n");
      assert.deepEqual(
        lines.filter((line) => line.startsWith("[")),
        ["[Unit]", "[Install]", "[Service]"],
      );
      const keys = lines
        .filter((line) => !line.startsWith("["))
        .map((line) => /^([A-Z][A-Za-z]+)=/.exec(line)?.[1]);
      assert.ok(!keys.includes(undefined), content);
      const once = keys.filter((key) => key !== "WantedBy"); // adds to a list, as systemd.unit(5) says
      assert.equal(new Set(once).size, once.length);
    }
  });

  it("hold nothing that systemd expands", () => {
    for (const { content = "" } of units) assert.doesNotMatch(content, /[%$"']/);
  });

  it("are what systemd understands without a remark", async () => {
    const root = await mkdtemp(join(tmpdir(), "units-"));
    try {
      await writeRoot(root, (content) => content);
      const remarks = verify(root);
      if (remarks === undefined) return; // no systemd on this machine; the tests above have read the text
      assert.equal(remarks, "");
      await writeRoot(root, (content) => content.replace("Restart=always", "Restart=sometimes"));
      assert.match(verify(root) ?? "", /restart specifier/);
    } finally {
      await rm(root, { recursive: true });
    }
  });
});
