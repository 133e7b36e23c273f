// SPDX-License-Identifier: Apache-2.0
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
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
/** Those that a host with glibc alone lacks. */
const OF_GCC = ["libgcc-s1", "libstdc++6"] as const;
/**
 * Where these are from: the oldest release that Debian's mirrors have. Libraries want the glibc that they were built
 * with or a newer one; so old ones run wherever Node runs (glibc 2.28), and have all that Node takes from them.
 */
const GCC_SUITE = "bullseye";
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LOADERS: Readonly<
  Record<Arch, { readonly path: string; readonly debian: string; readonly triplet: string }>
> = {
  x64: { path: "lib64/ld-linux-x86-64.so.2", debian: "amd64", triplet: "x86_64-linux-gnu" },
  arm64: { path: "lib/ld-linux-aarch64.so.1", debian: "arm64", triplet: "aarch64-linux-gnu" },
};

/**
 * Takes glibc from the packages of the release that this machine runs, and the libraries of GCC from an old Debian,
 * for either architecture, without installing them. apt checks the signatures.
 *
 * @throws Error when there is no apt, or it cannot reach a mirror
 */
export async function readLibraries(arch: Arch): Promise<Libraries> {
  const root = await unpackedPackages(arch);
  const loader = LOADERS[arch];
  const directories = new Set(["lib", loader.path.slice(0, loader.path.lastIndexOf("/"))]);
  const entries: TarEntry[] = [...directories].map((path) => ({ kind: "directory", path }));
  const name = loader.path.slice(loader.path.lastIndexOf("/") + 1);
  entries.push({
    kind: "file",
    path: loader.path,
    mode: 0o755,
    content: await readLibrary(arch, root, name),
  });
  for (const library of Object.values(WANTED).flat()) {
    entries.push({ kind: "file", path: `lib/${library}`, content: await readLibrary(arch, root, library) });
  }
  for (const path of ["usr", "usr/share", "usr/share/doc"]) entries.push({ kind: "directory", path });
  const compilers = (await readdir(`${root}/usr/share/doc`)).filter((each) => /^gcc-\d+-base$/.test(each));
  for (const source of Object.keys(WANTED)) {
    // libgcc-s1 and libstdc++6 point to the notice of their compiler's package.
    const notice = [source, ...compilers]
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
  const packages = (await readdir(join(root, "..")))
    .filter((file) => file.endsWith(".deb"))
    .map((file) => decodeURIComponent(file.split("_").slice(0, 2).join("=")));
  return { entries, packages: packages.toSorted() };
}

/** The libraries that are carried beside an executable, by name. @throws as readLibraries */
export async function readGccLibraries(arch: Arch): Promise<ReadonlyMap<string, Buffer>> {
  const root = await unpackedPackages(arch);
  const found = new Map<string, Buffer>();
  for (const name of OF_GCC.flatMap((source) => WANTED[source] ?? []))
    found.set(name, await readLibrary(arch, root, name));
  return found;
}

async function readLibrary(arch: Arch, root: string, name: string): Promise<Buffer> {
  const places = ["lib", "usr/lib"].map((each) => `${root}/${each}/${LOADERS[arch].triplet}/${name}`);
  const place = places.find((path) => existsSync(path));
  if (place === undefined) throw new Error(`${name} is in none of ${Object.keys(WANTED).join(", ")}`);
  return readFile(place);
}

/** The folder with what the packages hold, fetched once. */
async function unpackedPackages(arch: Arch): Promise<string> {
  if (findProgram("apt-get") === undefined || findProgram("dpkg-deb") === undefined) {
    throw new Error("libraries are taken from Debian packages: apt-get and dpkg-deb are needed");
  }
  const folder = `${ROOT}/.cache/debian/${arch}-${GCC_SUITE}`;
  if (!existsSync(`${folder}/unpacked`)) await fetchPackages(arch, folder);
  return `${folder}/unpacked`;
}

/** Downloads into a private state of apt, so that this machine's architecture and lists do not matter. */
async function fetchPackages(arch: Arch, folder: string): Promise<void> {
  const work = `${folder}.${process.pid}`;
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  try {
    await download(arch, work, ["libc6"]);
    try {
      await download(arch, work, OF_GCC, await sourceOf(GCC_SUITE));
    } catch (error) {
      console.log(`  no GCC libraries of Debian ${GCC_SUITE}: ${lastLine(error)}`);
      console.log("  those of this machine's release take their place; they want its glibc or a newer one");
      await download(arch, work, OF_GCC);
    }
    for (const file of (await readdir(work)).filter((each) => each.endsWith(".deb")))
      await captureOk("dpkg-deb", ["-x", `${work}/${file}`, `${work}/unpacked`]);
    await rm(folder, { recursive: true, force: true });
    await rename(work, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** @param source a line for apt's list of sources; without it those of this machine */
async function download(
  arch: Arch,
  folder: string,
  packages: readonly string[],
  source?: string,
): Promise<void> {
  const state = `${folder}/apt`;
  await rm(state, { recursive: true, force: true });
  for (const path of ["lists/partial", "archives/partial"])
    await mkdir(`${state}/${path}`, { recursive: true });
  const { debian } = LOADERS[arch];
  const settings = [
    `APT::Architecture=${debian}`,
    `APT::Architectures=${debian}`,
    "APT::Sandbox::User=",
    "APT::Update::Error-Mode=any",
    "Acquire::Languages=none",
    `Dir::State::lists=${state}/lists`,
    `Dir::Cache=${state}`,
    "Dir::State::status=/dev/null",
  ];
  if (source !== undefined) {
    await writeFile(`${state}/sources.list`, `${source}\n`);
    settings.push(
      `Dir::Etc::sourcelist=${state}/sources.list`,
      "Dir::Etc::sourceparts=-",
      "Dir::Etc::preferencesparts=-",
    );
  }
  const options = settings.flatMap((setting) => ["-o", setting]);
  console.log(`  fetching ${packages.join(", ")} for ${debian} from Debian`);
  await captureOk("apt-get", [...options, "update", "-qq"]);
  const names = packages.includes("libgcc-s1") ? [...packages, await noticeOf(options)] : packages;
  await captureOk("apt-get", [...options, "download", "-qq", ...names], { cwd: folder });
  await rm(state, { recursive: true });
}

/** The package that holds the notice of GCC's libraries: `gcc-12-base` on Debian 12. */
async function noticeOf(options: readonly string[]): Promise<string> {
  const output = await captureOk("apt-cache", [...options, "depends", "libgcc-s1"]);
  const name = /gcc-\d+-base/.exec(output)?.[0];
  if (name === undefined) throw new Error("libgcc-s1 depends on no gcc-<version>-base");
  return name;
}

/** The line for another release, from the mirror that this machine gets Debian from. */
async function sourceOf(suite: string): Promise<string> {
  const release = await readFile("/etc/os-release", "utf8");
  const codename = /^VERSION_CODENAME=(.+)$/m.exec(release)?.[1] ?? "";
  if (!/^ID=debian$/m.test(release)) throw new Error("this is no Debian, its sources name no Debian mirror");
  const format = ["--no-release-info", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Identifier: Packages"];
  const targets = await captureOk("apt-get", ["indextargets", ...format]);
  const site = targets
    .split("\n")
    .find((line) => line.endsWith(` ${codename} main`))
    ?.split(" ")[0];
  if (site === undefined) throw new Error(`no source of this machine has ${codename} main`);
  return `deb [signed-by=${KEYRING}] ${site} ${suite} main`;
}

function lastLine(error: unknown): string {
  return errorText(error).trim().split("\n").at(-1) ?? "";
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
