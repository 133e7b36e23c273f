// SPDX-License-Identifier: Apache-2.0
/** The executable on a root file system that has glibc and nothing else. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { sha256Digest } from "#oci";
import { makeImage } from "../kit/image-maker/index.ts";
import { startProcess } from "../kit/process/index.ts";

const execute = promisify(execFile);
/** What every glibc brings: https://sourceware.org/glibc. */
const GLIBC = /^(?:ld-linux-\S+|libc|libm|libdl|libpthread)\.so\.\d+$/;
const CARRIED = ["libgcc_s.so.1", "libstdc++.so.6"];
const signal = AbortSignal.timeout(100_000);

describe("a root file system with glibc alone", () => {
  let root: string;
  before(async () => {
    root = await mkdtemp(join(tmpdir(), "bare-root-"));
    await mkdir(join(root, "proc"));
    const { stdout } = await execute("ldd", ["dist/spegel"], { signal });
    const libraries = stdout.match(/\/\S+/g) ?? [];
    for (const path of libraries.filter((each) => GLIBC.test(each.slice(each.lastIndexOf("/") + 1)))) {
      await mkdir(join(root, dirname(path)), { recursive: true });
      await copyFile(path, join(root, path));
    }
  });
  after(() => rm(root, { recursive: true, force: true }));

  /** Changes into the root, with /proc as on every system: the loader learns from it where the executable lies. */
  function inside(...words: string[]): readonly [string, string[]] {
    const script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"';
    return ["unshare", ["--mount", "sh", "-c", script, root, ...words]];
  }

  /** Puts the executable into a folder of the root, with or without the libraries that are carried beside it. */
  async function install(folder: string, options: { readonly isWhole: boolean }): Promise<string> {
    await mkdir(join(root, folder, "lib"), { recursive: true });
    await copyFile("dist/spegel", join(root, folder, "spegel"));
    if (options.isWhole)
      for (const name of CARRIED) await copyFile(join("dist/lib", name), join(root, folder, "lib", name));
    return `/${folder}/spegel`;
  }

  it("starts what is built, with the libraries that lie beside it", async () => {
    const program = await install("opt/whole", { isWhole: true });
    const { stdout } = await execute(...inside(program, "version"), { signal });
    assert.match(stdout, /^spegel version \d/);
    const files = await readdir(root, { recursive: true, withFileTypes: true });
    const others = files
      .filter((file) => file.isFile() && !file.parentPath.startsWith(join(root, "opt")))
      .map((file) => file.name);
    assert.deepEqual(
      others.filter((name) => !GLIBC.test(name)),
      [],
    );
  });

  it("is told by the loader what is missing when the libraries are not beside it", async () => {
    const program = await install("opt/alone", { isWhole: false });
    await assert.rejects(execute(...inside(program, "version"), { signal }), {
      code: 127,
      stderr: /libstdc\+\+\.so\.6: cannot open shared object file/,
    });
  });

  it("serves images with it", async () => {
    const program = await install("opt/serving", { isWhole: true });
    const layout = await makeImage(
      join(root, "opt/images"),
      { seed: "bare", layerSizesBytes: [2 * 1024 * 1024] },
      { signal },
    );
    const [command, args] = inside(
      ...[program, "registry", "--store=oci-layout:/opt/images", "--bootstrap-kind=static"],
      ...["--registry-addr=127.0.0.1:0", "--router-addr=127.0.0.1:0", "--metrics-addr=127.0.0.1:0"],
    );
    await using running = await startProcess({
      name: "spegel in a bare root",
      command,
      args,
      ready: { kind: "line", pattern: /"msg":"Serving\."/ },
      readyTimeoutMs: 30_000,
      signal,
    });
    const line =
      running.output.lines.map(({ text }) => text).find((text) => text.includes('"Serving."')) ?? "";
    const { registry } = JSON.parse(line) as { readonly registry: string };
    for (const { digest, kind } of layout.objects.filter((object) => object.kind !== "index")) {
      const section = kind === "manifest" ? "manifests" : "blobs";
      const response = await fetch(`http://${registry}/v2/any/${section}/${digest}?ns=example.test`, {
        signal,
      });
      assert.equal(response.status, 200, kind);
      assert.equal(sha256Digest(Buffer.from(await response.arrayBuffer())), digest);
    }
  });
});
