// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from "node:child_process";
import { elapsed, findProgram } from "./process.ts";
import { ROOT } from "./sources.ts";

/** A group of tests that need the same things of the machine. */
export interface Tier {
  readonly name: string;
  /** One line for people: what it proves. */
  readonly about: string;
  /** Which test files belong to it. A file belongs to one tier. */
  readonly files: RegExp;
  /** Without test files the tier fails under CI. */
  readonly isRequired: boolean;
  readonly needsRoot: boolean;
  /** Whether dist/ is built before it. */
  readonly needsBuild: boolean;
  /** Test files at once. */
  readonly concurrency: number;
  /** Limit of one test. */
  readonly timeoutMs: number;
  /** Programs it needs, and the Debian package of each; `undefined` is one that people install themselves. */
  readonly programs: Readonly<Record<string, string | undefined>>;
  /** A script that makes what the tests need and that takes long the first time; it writes its progress. */
  readonly script?: string;
}

const PLAIN = { needsRoot: false, needsBuild: false, isRequired: true, programs: {} } as const;

/** All tiers but `static`, in the order in which they run: the quick ones first. */
export const TIERS: readonly Tier[] = [
  {
    ...PLAIN,
    name: "unit",
    about: "each package alone",
    files: /^(pkg|cmd|api|hack|charts|example|docs)\/.*\.test\.ts$/,
    concurrency: 2,
    timeoutMs: 60_000,
  },
  {
    ...PLAIN,
    name: "integration",
    about: "programs and packages together on loopback",
    files: /^test\/(integration|kit|demo)\/.*\.test\.ts$/,
    concurrency: 2,
    timeoutMs: 120_000,
  },
  {
    ...PLAIN,
    name: "nodes",
    about: "several real containerds in network namespaces",
    files: /^test\/nodes\/.*\.test\.ts$/,
    needsRoot: true,
    needsBuild: true,
    concurrency: 1,
    timeoutMs: 600_000,
    programs: {
      containerd: "containerd",
      runc: "runc",
      ip: "iproute2",
      nft: "nftables",
      "docker-registry": "docker-registry",
      skopeo: "skopeo",
      nginx: "nginx-light",
    },
  },
  {
    ...PLAIN,
    name: "interop",
    about: "one swarm with go-libp2p peers",
    files: /^test\/interop\/.*\.test\.ts$/,
    concurrency: 1,
    timeoutMs: 300_000,
    programs: { go: undefined },
  },
  {
    ...PLAIN,
    name: "chart",
    about: "charts rendered by Helm and judged by Kubernetes' schemas",
    files: /^test\/chart\/.*\.test\.ts$/,
    concurrency: 1,
    // Helm is compiled the first time.
    timeoutMs: 900_000,
    programs: { go: undefined },
  },
  {
    ...PLAIN,
    name: "cluster",
    about: "a real etcd and kube-apiserver, with the parts of Gardener around the extension",
    files: /^test\/cluster\/.*\.test\.ts$/,
    concurrency: 2,
    timeoutMs: 300_000,
    programs: { go: undefined },
    script: "test/kit/kube-parts/main.ts",
  },
];

/**
 * Makes the machine ready for a tier: installs the Debian packages of missing programs when it can.
 *
 * @returns undefined when the tier can run, else why it cannot, in one line
 */
export function prepareTier(tier: Tier): string | undefined {
  const isRoot = process.getuid?.() === 0;
  if (tier.needsRoot && !isRoot) return "needs root";
  return installPrograms(tier, isRoot) ?? runScript(tier);
}

function installPrograms(tier: Tier, isRoot: boolean): string | undefined {
  const missing = Object.keys(tier.programs).filter((program) => findProgram(program) === undefined);
  if (missing.length === 0) return undefined;
  const manual = missing.filter((program) => tier.programs[program] === undefined);
  if (manual.length > 0) return `no ${manual.join(", ")} in PATH`;
  const packages = missing.flatMap((program) => tier.programs[program] ?? []);
  if (!isRoot || findProgram("apt-get") === undefined) {
    return `no ${missing.join(", ")} in PATH; Debian and Ubuntu: apt-get install ${packages.join(" ")}`;
  }
  const reason = installDebianPackages(packages);
  const still = missing.filter((program) => findProgram(program) === undefined);
  return still.length === 0
    ? undefined
    : `no ${still.join(", ")} after apt-get install: ${reason ?? "it said nothing"}`;
}

function runScript({ script }: Tier): string | undefined {
  if (script === undefined) return undefined;
  try {
    const args = ["--disable-warning=ExperimentalWarning", script];
    execFileSync(process.execPath, args, { cwd: ROOT, stdio: "inherit", timeout: 1_800_000 });
    return undefined;
  } catch {
    return `${script} failed`;
  }
}

/** @returns the end of apt's output when it failed */
function installDebianPackages(packages: readonly string[]): string | undefined {
  const started = performance.now();
  console.log(`  installing ${packages.join(" ")}`);
  // RUNLEVEL=1 keeps the packages from starting their services on this machine.
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  const apt = (...args: string[]): void => {
    execFileSync("apt-get", args, { env, stdio: ["ignore", "ignore", "pipe"], timeout: 600_000 });
  };
  try {
    apt("update", "-qq");
    apt("install", "-y", "-qq", "--no-install-recommends", ...packages);
    console.log(`  installed in ${elapsed(started)}`);
    return undefined;
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    return text.trim().split("\n").at(-1);
  }
}
