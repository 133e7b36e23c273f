// SPDX-License-Identifier: Apache-2.0
/**
 * The lock file must name every optional dependency, also those for other systems: `npm ci` refuses a file in
 * which one is missing. npm writes only those that its registry can serve, so a registry that leaves out the
 * builds for other systems makes a lock file that works nowhere. `node hack/lock-file.ts` adds what is missing.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { ROOT } from "./sources.ts";

interface LockedPackage {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly optional?: boolean;
  readonly dev?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

interface LockFile {
  readonly packages: Record<string, LockedPackage>;
}

/** Problems of a lock file, one line each. */
export function checkLockFile(text: string): string[] {
  const lock = JSON.parse(text) as LockFile;
  const problems = Object.entries(lock.packages).flatMap(([path, entry]) => {
    if (entry.resolved !== undefined) {
      return [`${path}: has "resolved"; npm needs omit-lockfile-registry-resolved=true`];
    }
    if (path !== "" && entry.integrity === undefined && runsHere(entry)) return [`${path}: has no integrity`];
    return [];
  });
  const missing = missingPackages(lock).map(
    ([path]) => `${path}: is missing; add it with: node hack/lock-file.ts`,
  );
  return [...problems, ...missing];
}

/** The same lock file with an entry for each optional dependency that had none. */
export function completeLockFile(text: string): string {
  const lock = JSON.parse(text) as LockFile;
  const packages = { ...lock.packages, ...Object.fromEntries(missingPackages(lock)) };
  const sorted = Object.fromEntries(
    Object.entries(packages).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
  );
  return `${JSON.stringify({ ...lock, packages: sorted }, null, 2)}\n`;
}

/** Entries for other systems are never fetched on those we build on, so npm need not know their hash. */
function runsHere({ os, cpu, libc }: LockedPackage): boolean {
  return (
    (os?.includes("linux") ?? true) &&
    (cpu === undefined || cpu.includes("x64") || cpu.includes("arm64")) &&
    (libc?.includes("glibc") ?? true)
  );
}

function missingPackages(lock: LockFile): [string, LockedPackage][] {
  const known = new Set(Object.keys(lock.packages).map((path) => path.split("node_modules/").at(-1)));
  return Object.entries(lock.packages).flatMap(([, entry]) =>
    Object.entries(entry.optionalDependencies ?? {})
      .filter(([name]) => !known.has(name))
      .map(([name, version]): [string, LockedPackage] => [
        `node_modules/${name}`,
        { version, ...platformOf(name), ...(entry.dev === true ? { dev: true } : {}), optional: true },
      ]),
  );
}

const SYSTEMS = ["android", "darwin", "freebsd", "linux", "openharmony", "win32"];
const PROCESSORS = ["arm", "arm64", "ia32", "ppc64", "riscv64", "s390x", "x64"];

/**
 * The system that builds for one system carry in their names: `@oxlint/binding-linux-arm64-musl`.
 *
 * @throws Error when the name tells none: such a package may be needed here and must come from npm
 */
function platformOf(name: string): Pick<LockedPackage, "os" | "cpu" | "libc"> {
  const words = name.split(/[/-]/);
  const os = SYSTEMS.find((each) => words.includes(each));
  const cpu = PROCESSORS.find((each) => words.includes(each));
  if (os === undefined || cpu === undefined) throw new Error(`${name} names no system that it is for`);
  const platform = { os: [os], cpu: [cpu], ...(/musl/.test(name) ? { libc: ["musl"] } : {}) };
  if (runsHere(platform)) throw new Error(`${name} is for this system; npm must be able to fetch it`);
  return platform;
}

if (import.meta.main) {
  const path = `${ROOT}/package-lock.json`;
  const text = readFileSync(path, "utf8");
  const completed = completeLockFile(text);
  if (completed !== text) writeFileSync(path, completed);
  console.log(completed === text ? "package-lock.json is complete" : "package-lock.json was completed");
}
