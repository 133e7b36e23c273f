// SPDX-License-Identifier: Apache-2.0
/**
 * Builds the programs into dist/: `node hack/build.ts [--arch=arm64]`. For the machine's own architecture
 *
 *   dist/spegel                             one executable with Node inside
 *   dist/gardener-extension-registry-spegel, dist/registry-spegel-bootstrapper, ...   scripts that start
 *   dist/lib/node                           the Node they share, with
 *   dist/lib/<folder>.mjs                   their bundles
 *   dist/lib/libstdc++.so.6, libgcc_s.so.1  what the executable needs beside glibc; it looks there first
 *   dist/meta/<folder>.json                 what is inside each bundle (esbuild metafile)
 *
 * and in dist/<arch>/ for another one. Two builds of one commit give the same bytes. Each file is replaced in one step:
 * whoever starts a program meanwhile gets the old or the new one.
 */
import { copyFile, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { relative } from "node:path";
import { build, type Metafile } from "esbuild";
import { judgeBundle } from "./budget.ts";
import { packedPrefixes, shims, versionOnly } from "./build-plugins.ts";
import { readGccLibraries } from "./debian-libraries.ts";
import { type Arch, prepareNode } from "./node-runtime.ts";
import { capture, captureOk, elapsed } from "./process.ts";
import { entryOf, listPrograms, type Program } from "./programs.ts";
import { ROOT } from "./sources.ts";

const NATIVE: Arch = process.arch === "arm64" ? "arm64" : "x64";

/** Where the programs for `arch` lie. */
export function distFolder(arch: Arch): string {
  return arch === NATIVE ? `${ROOT}/dist` : `${ROOT}/dist/${arch}`;
}

/** Builds all programs for one architecture and prints a table. Throws when one is over its budget. */
export async function buildPrograms(arch: Arch): Promise<void> {
  const dist = distFolder(arch);
  const programs = listPrograms();
  if (programs.length === 0) throw new Error("no cmd/*/main.ts to build");
  const [node] = await Promise.all([prepareNode(arch), mkdir(`${dist}/lib`, { recursive: true })]);
  await mkdir(`${dist}/meta`, { recursive: true });
  await replace(`${dist}/lib/node`, (path) => copyFile(node, path));
  await carryLibraries(arch, dist);
  const commit = await currentCommit();
  const problems: string[] = [];
  for (const program of programs) {
    const started = performance.now();
    const metafile = await bundle(program, dist, commit);
    if (program.form === "executable") await inject(program, dist, node, arch);
    else await writeLauncher(program, dist);
    const size = judgeBundle(program, metafile);
    const largest = size.parts.slice(0, 4).map(([part, bytes]) => `${part} ${kilobytes(bytes)}`);
    const target = relative(ROOT, `${dist}/${program.name}`);
    console.log(`  ${target}: bundle ${kilobytes(size.bytes)} (${largest.join(", ")}), ${elapsed(started)}`);
    problems.push(...size.problems.map((problem) => `${program.name} ${problem}`));
  }
  if (problems.length > 0) throw new Error(`over budget:\n${problems.join("\n")}`);
}

/** Writes a file beside the one it takes the place of, which a running program may hold. */
async function replace(path: string, write: (beside: string) => Promise<unknown>): Promise<void> {
  const beside = `${path}.${process.pid}`;
  try {
    await write(beside);
    await rename(beside, path);
  } finally {
    await rm(beside, { force: true });
  }
}

/** On a machine that cannot reach Debian the programs are built all the same; they run where these libraries are. */
async function carryLibraries(arch: Arch, dist: string): Promise<void> {
  try {
    for (const [name, bytes] of await readGccLibraries(arch))
      await replace(`${dist}/lib/${name}`, (path) => writeFile(path, bytes));
  } catch (error) {
    const [reason] = (error instanceof Error ? error.message : String(error)).split("\n");
    console.log(`  libstdc++ and libgcc are not carried beside the executable: ${reason}`);
  }
}

async function bundle(program: Program, dist: string, commit: string): Promise<Metafile> {
  const outfile = `${dist}/lib/${program.folder}.mjs`;
  const { metafile, outputFiles } = await build({
    absWorkingDir: ROOT,
    entryPoints: [entryOf(program)],
    outfile,
    write: false,
    bundle: true,
    minify: true,
    // Names in stack traces and of error classes stay readable.
    keepNames: program.form !== "executable",
    platform: "node",
    target: "node26",
    format: "esm",
    // Dependencies in CommonJS ask for built-in modules with require().
    banner: { js: 'import{createRequire as __cr}from"node:module";const require=__cr(import.meta.url);' },
    define: { "process.env.SPEGEL_BUILD_COMMIT": JSON.stringify(commit) },
    plugins: [shims, packedPrefixes, versionOnly],
    legalComments: "none",
    metafile: true,
    logLevel: "warning",
  });
  for (const { contents } of outputFiles) await replace(outfile, (path) => writeFile(path, contents));
  await writeFile(`${dist}/meta/${program.folder}.json`, JSON.stringify(metafile));
  return metafile;
}

/** One file: Node with the bundle inside, and its compiled form when it can be made on this machine. */
async function inject(program: Program, dist: string, node: string, arch: Arch): Promise<void> {
  const useCodeCache = arch === NATIVE;
  const configuration = `${dist}/meta/${program.folder}.sea.json`;
  const builder = await prepareNode(NATIVE);
  await replace(`${dist}/${program.name}`, async (output) => {
    await writeFile(
      configuration,
      JSON.stringify({
        // Relative: this path becomes part of the file.
        main: relative(ROOT, `${dist}/lib/${program.folder}.mjs`),
        mainFormat: "module",
        executable: node,
        output,
        disableExperimentalSEAWarning: true,
        useCodeCache,
        useSnapshot: false,
        execArgv: program.nodeOptions,
        execArgvExtension: "env",
      }),
    );
    // The code cache is accepted only under the options it was made with; --predictable makes it the same each time.
    await captureOk(builder, [...program.nodeOptions, "--predictable", "--build-sea", configuration]);
    if (!useCodeCache) return;
    const { output: said } = await capture(output, ["version"]);
    if (/cache data rejected/.test(said)) throw new Error(`${program.name} rejects its code cache`);
  });
}

async function writeLauncher(program: Program, dist: string): Promise<void> {
  const script = `#!/bin/sh
# Starts the program with the Node beside it.
lib=$(dirname "$(readlink -f "$0")")/lib
exec "$lib/node" ${program.nodeOptions.join(" ")} "$lib/${program.folder}.mjs" "$@"
`;
  await replace(`${dist}/${program.name}`, (path) => writeFile(path, script, { mode: 0o755 }));
}

async function currentCommit(): Promise<string> {
  const { code, output } = await capture("git", ["rev-parse", "HEAD"]);
  return code === 0 ? output.trim() : "unknown";
}

function kilobytes(bytes: number): string {
  return `${Math.round(bytes / 1000)} kB`;
}

if (import.meta.main) {
  const started = performance.now();
  const arch = process.argv.includes("--arch=arm64")
    ? "arm64"
    : process.argv.includes("--arch=x64")
      ? "x64"
      : NATIVE;
  console.log(`build: linux/${arch}, node ${process.version}`);
  try {
    await buildPrograms(arch);
    console.log(`build: done in ${elapsed(started)}`);
  } catch (error) {
    console.error(
      `build: FAILED after ${elapsed(started)}: ${error instanceof Error ? error.message : String(error)}`,
    );
    process.exitCode = 1;
  }
}
