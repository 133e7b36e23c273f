// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { errorMessage } from "#errors";
import { containerdVersion } from "./containerd-node.ts";

const execute = promisify(execFile);

/** What differs in events and configuration is told apart by these three. */
const GENERATIONS = ["1.6", "1.7", "2.x"] as const;
type Generation = (typeof GENERATIONS)[number];

export interface ContainerdBinary {
  readonly generation: Generation;
  /** `1.6.20` */
  readonly version: string;
  /** `containerd` itself; `ctr` of the same version lies beside it. */
  readonly path: string;
  readonly ctrPath: string;
}

export interface ContainerdBinaries {
  /** In the order of `GENERATIONS`; at most one of each. */
  readonly found: readonly ContainerdBinary[];
  /** One line: which generations are missing and why. Undefined when none is. */
  readonly missing: string | undefined;
}

// Where Debian has each generation. The last one moves: whatever 2.x is there is taken.
const SUITES: Readonly<Record<Generation, string>> = { "1.6": "bookworm", "1.7": "trixie", "2.x": "sid" };
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const APT_TIMEOUT_MS = 120_000;

/**
 * Finds a containerd of each generation: the machine's own, and others out of Debian's packages, unpacked beside it
 * and kept in `${XDG_CACHE_HOME:-~/.cache}/registry-spegel/containerd`. Nothing is installed, and apt's own state
 * and sources stay as they are; the mirror is the one that the machine's sources name.
 */
export async function findContainerdBinaries(options: {
  readonly signal: AbortSignal;
}): Promise<ContainerdBinaries> {
  const cache = join(
    process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"),
    "registry-spegel",
    "containerd",
  );
  const found = new Map<Generation, ContainerdBinary>();
  const problems: string[] = [];
  const own = await describe("/usr/bin").catch(() => undefined);
  if (own !== undefined) found.set(own.generation, own);
  for (const generation of GENERATIONS) {
    if (found.has(generation)) continue;
    const directory = join(cache, `${SUITES[generation]}-${process.arch}`);
    try {
      if (!(await exists(directory))) await unpack(SUITES[generation], cache, directory, options.signal);
      const unpacked = await describe(join(directory, "usr/bin"));
      if (unpacked.generation === generation) found.set(generation, unpacked);
      else problems.push(`${generation}: Debian ${SUITES[generation]} has ${unpacked.version}`);
    } catch (error) {
      options.signal.throwIfAborted();
      problems.push(`${generation}: ${lastLine(errorMessage(error))}`);
    }
  }
  return {
    found: GENERATIONS.flatMap((generation) => found.get(generation) ?? []),
    missing: problems.length === 0 ? undefined : `no containerd ${problems.join("; ")}`,
  };
}

/** A binary for each of `count` nodes, the generations in turn. */
export function spreadGenerations(
  binaries: readonly ContainerdBinary[],
  count: number,
): readonly ContainerdBinary[] {
  return Array.from({ length: count }, (_, index) => binaries[index % binaries.length] as ContainerdBinary);
}

async function describe(directory: string): Promise<ContainerdBinary> {
  const path = join(directory, "containerd");
  const version = await containerdVersion(path);
  const [major, minor] = version.split(".").map(Number);
  const generation = major === 1 ? (`1.${minor}` as Generation) : "2.x";
  if (!GENERATIONS.includes(generation)) throw new Error(`containerd ${version} is no known generation`);
  return { generation, version, path, ctrPath: join(directory, "ctr") };
}

/** Downloads the package with an apt state of its own, whose signatures are checked as always, and unpacks it. */
async function unpack(suite: string, cache: string, directory: string, signal: AbortSignal): Promise<void> {
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, ".unpack-"));
  try {
    for (const name of ["lists/partial", "cache/archives/partial", "state", "root"])
      await mkdir(join(work, name), { recursive: true });
    await writeFile(
      join(work, "sources.list"),
      `deb [signed-by=${KEYRING}] ${await debianMirror(signal)} ${suite} main\n`,
    );
    await writeFile(join(work, "status"), "");
    const settings = [
      `Dir::Etc::sourcelist=${work}/sources.list`,
      "Dir::Etc::sourceparts=-",
      "Dir::Etc::preferencesparts=-",
      `Dir::State=${work}/state`,
      `Dir::State::lists=${work}/lists`,
      `Dir::State::status=${work}/status`,
      `Dir::Cache=${work}/cache`,
      "APT::Sandbox::User=root",
      "Acquire::Languages=none",
      "Acquire::Retries=1",
      "Acquire::http::Timeout=15",
      "APT::Update::Error-Mode=any",
    ].flatMap((setting) => ["-o", setting]);
    const apt = (...words: string[]): Promise<unknown> =>
      execute("apt-get", [...settings, "-qq", ...words], { cwd: work, signal, timeout: APT_TIMEOUT_MS });
    await apt("update");
    await apt("download", "containerd");
    const file = (await readdir(work)).find((name) => name.endsWith(".deb"));
    if (file === undefined) throw new Error(`apt-get download left no package of ${suite}`);
    await execute("dpkg-deb", ["-x", join(work, file), join(work, "root")], { signal });
    // Programs that do not run here are not kept.
    await describe(join(work, "root/usr/bin"));
    await rename(join(work, "root"), directory);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The address from which this machine gets Debian itself. */
async function debianMirror(signal: AbortSignal): Promise<string> {
  const release = await readFile("/etc/os-release", "utf8");
  const codename = /^VERSION_CODENAME=(.+)$/m.exec(release)?.[1] ?? "";
  if (!/^ID=debian$/m.test(release)) throw new Error("this is no Debian, its sources name no Debian mirror");
  const { stdout } = await execute(
    "apt-get",
    [
      "indextargets",
      "--no-release-info",
      "--format",
      "$(SITE) $(RELEASE) $(COMPONENT)",
      "Identifier: Packages",
    ],
    { signal, timeout: APT_TIMEOUT_MS },
  );
  const line = stdout.split("\n").find((each) => each.endsWith(` ${codename} main`));
  const site = line?.split(" ")[0];
  if (site === undefined) throw new Error(`no source of this machine has ${codename} main`);
  return site;
}

function lastLine(message: string): string {
  return message.trim().split("\n").at(-1) ?? message;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
