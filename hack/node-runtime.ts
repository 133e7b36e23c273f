// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { bringAtomicAlong, neededLibraries, stripSymbols } from "./elf.ts";
import { captureOk } from "./process.ts";
import { ROOT } from "./sources.ts";

export type Arch = "x64" | "arm64";

const CACHE = `${ROOT}/.cache/node`;

/** Libraries of every glibc, and the two of GCC that node images of all kinds have; see docs/adr/0004. */
export const ALLOWED_LIBRARIES: readonly string[] = [
  "libc.so.6",
  "libdl.so.2",
  "libm.so.6",
  "libpthread.so.0",
  "ld-linux-x86-64.so.2",
  "ld-linux-aarch64.so.1",
  "libstdc++.so.6",
  "libgcc_s.so.1",
];

/**
 * The path of the pinned Node for `arch`, without debug symbols and without need for libatomic. Kept in the
 * cache, by what it was made from and how.
 *
 * @throws Error when Node has another form than expected, or is not the file that package-lock.json names
 */
export async function prepareNode(arch: Arch): Promise<string> {
  const original = await originalNode(arch);
  const key = createHash("sha256").update(await readFile(original.path));
  key.update(await readFile(`${ROOT}/hack/elf.ts`));
  const path = `${CACHE}/node-${original.version}-${arch}-${key.digest("hex").slice(0, 16)}`;
  if (existsSync(path)) return path;
  const elf = stripSymbols(await readFile(original.path));
  bringAtomicAlong(elf);
  const unknown = neededLibraries(elf).filter((library) => !ALLOWED_LIBRARIES.includes(library));
  if (unknown.length > 0) throw new Error(`Node for ${arch} needs ${unknown.join(", ")}`);
  await mkdir(CACHE, { recursive: true });
  await writeFile(`${path}.${process.pid}`, elf);
  await chmod(`${path}.${process.pid}`, 0o755);
  await rename(`${path}.${process.pid}`, path);
  return path;
}

/** Node as it was released. npm installs only that of this machine; the other one is packed into the cache. */
async function originalNode(arch: Arch): Promise<{ readonly path: string; readonly version: string }> {
  const name = `node-linux-${arch}`;
  const lock = JSON.parse(await readFile(`${ROOT}/package-lock.json`, "utf8")) as {
    packages: Record<string, { version: string; integrity: string } | undefined>;
  };
  const locked = lock.packages[`node_modules/${name}`];
  if (locked === undefined) throw new Error(`package-lock.json has no ${name}`);
  const installed = `${ROOT}/node_modules/${name}/bin/node`;
  if (existsSync(installed)) return { path: installed, version: locked.version };

  const folder = `${CACHE}/${name}-${locked.version}`;
  const path = `${folder}/package/bin/node`;
  if (existsSync(path)) return { path, version: locked.version };
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  console.log(`  fetching ${name}@${locked.version}`);
  await captureOk("npm", ["pack", "--silent", "--pack-destination", folder, `${name}@${locked.version}`]);
  const archive = `${folder}/${name}-${locked.version}.tgz`;
  const integrity = `sha512-${createHash("sha512")
    .update(await readFile(archive))
    .digest("base64")}`;
  if (integrity !== locked.integrity)
    throw new Error(`${name}@${locked.version} is not what package-lock.json names`);
  await captureOk("tar", ["-xzf", archive, "-C", folder, "package/bin/node"]);
  await rm(archive);
  return { path, version: locked.version };
}
