// SPDX-License-Identifier: Apache-2.0
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import type { Arch } from "./node-runtime.ts";
import { captureOk, findProgram } from "./process.ts";
import { ROOT } from "./sources.ts";
import type { TarEntry } from "./tar.ts";

/** What Node needs below it: glibc with its loader, and the two libraries of GCC. */
export interface Libraries {
  readonly entries: readonly TarEntry[];
  /** `name=version` of each Debian package they are from. */
  readonly packages: readonly string[];
}

/** Files of each package, by name; the loader's own place is part of its name in every executable. */
const WANTED: Readonly<Record<string, readonly string[]>> = {
  libc6: ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libresolv.so.2"],
  "libgcc-s1": ["libgcc_s.so.1"],
  "libstdc++6": ["libstdc++.so.6"],
};
const LOADERS: Readonly<
  Record<Arch, { readonly path: string; readonly debian: string; readonly triplet: string }>
> = {
  x64: { path: "lib64/ld-linux-x86-64.so.2", debian: "amd64", triplet: "x86_64-linux-gnu" },
  arm64: { path: "lib/ld-linux-aarch64.so.1", debian: "arm64", triplet: "aarch64-linux-gnu" },
};

/**
 * Takes the libraries from the packages of the Debian release that this machine runs, for either architecture,
 * without installing them. apt checks the signatures.
 *
 * @throws Error when there is no apt, or it cannot reach a mirror
 */
export async function readLibraries(arch: Arch): Promise<Libraries> {
  if (findProgram("apt-get") === undefined || findProgram("dpkg-deb") === undefined) {
    throw new Error("images take glibc from Debian packages: apt-get and dpkg-deb are needed");
  }
  const folder = `${ROOT}/.cache/debian/${arch}`;
  if (!existsSync(`${folder}/unpacked`)) await fetchPackages(arch, folder);
  const root = `${folder}/unpacked`;
  const loader = LOADERS[arch];
  const read = async (name: string): Promise<Buffer> => {
    const places = ["lib", "usr/lib"].map((each) => `${root}/${each}/${loader.triplet}/${name}`);
    const place = places.find((path) => existsSync(path));
    if (place === undefined) throw new Error(`${name} is in none of ${Object.keys(WANTED).join(", ")}`);
    return readFile(place);
  };
  const directories = new Set(["lib", loader.path.slice(0, loader.path.lastIndexOf("/"))]);
  const entries: TarEntry[] = [...directories].map((path) => ({ kind: "directory", path }));
  const name = loader.path.slice(loader.path.lastIndexOf("/") + 1);
  entries.push({ kind: "file", path: loader.path, mode: 0o755, content: await read(name) });
  for (const library of Object.values(WANTED).flat()) {
    entries.push({ kind: "file", path: `lib/${library}`, content: await read(library) });
  }
  for (const path of ["usr", "usr/share", "usr/share/doc"]) entries.push({ kind: "directory", path });
  for (const source of Object.keys(WANTED)) {
    // libgcc-s1 and libstdc++6 point to the notice of their compiler's package.
    const notice = [source, "gcc-12-base", "gcc-14-base"]
      .map((each) => `${root}/usr/share/doc/${each}/copyright`)
      .find((path) => existsSync(path));
    if (notice === undefined) throw new Error(`${source} has no copyright notice`);
    entries.push({ kind: "directory", path: `usr/share/doc/${source}` });
    entries.push({
      kind: "file",
      path: `usr/share/doc/${source}/copyright`,
      content: await readFile(notice),
    });
  }
  const packages = (await readdir(folder))
    .filter((file) => file.endsWith(".deb"))
    .map((file) => decodeURIComponent(file.split("_").slice(0, 2).join("=")));
  return { entries, packages: packages.toSorted() };
}

/** Downloads into a private state of apt, so that this machine's architecture and lists do not matter. */
async function fetchPackages(arch: Arch, folder: string): Promise<void> {
  const work = `${folder}.${process.pid}`;
  await rm(work, { recursive: true, force: true });
  const state = `${work}/apt`;
  for (const path of ["lists/partial", "archives/partial"])
    await mkdir(`${state}/${path}`, { recursive: true });
  const { debian } = LOADERS[arch];
  const options = [
    `APT::Architecture=${debian}`,
    `APT::Architectures=${debian}`,
    "APT::Sandbox::User=",
    "Acquire::Languages=none",
    `Dir::State::lists=${state}/lists`,
    `Dir::Cache=${state}`,
    "Dir::State::status=/dev/null",
  ].flatMap((option) => ["-o", option]);
  console.log(`  fetching ${Object.keys(WANTED).join(", ")} for ${debian} from Debian`);
  await captureOk("apt-get", [...options, "update", "-qq"]);
  const names = [...Object.keys(WANTED), `gcc-${await compilerOf(options)}-base`];
  await captureOk("apt-get", [...options, "download", "-qq", ...names], { cwd: work });
  for (const file of (await readdir(work)).filter((each) => each.endsWith(".deb"))) {
    await captureOk("dpkg-deb", ["-x", `${work}/${file}`, `${work}/unpacked`]);
  }
  await rm(state, { recursive: true });
  await rm(folder, { recursive: true, force: true });
  await rename(work, folder);
}

/** The version of GCC whose base package holds the notice: `12` on Debian 12. */
async function compilerOf(options: readonly string[]): Promise<string> {
  const output = await captureOk("apt-cache", [...options, "depends", "libgcc-s1"]);
  const version = /gcc-(\d+)-base/.exec(output)?.[1];
  if (version === undefined) throw new Error("libgcc-s1 depends on no gcc-<version>-base");
  return version;
}
