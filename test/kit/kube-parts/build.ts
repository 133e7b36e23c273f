// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";

/** Paths of the executables. */
export interface KubeParts {
  readonly etcd: string;
  readonly kubeAPIServer: string;
}

interface Part {
  /** Name of the executable, and of the folder here whose go.mod and go.sum pin all that goes into it. */
  readonly name: "etcd" | "kube-apiserver";
  readonly module: string;
  readonly package: string;
  /** Further linker flags for a version such as v1.36.3. */
  readonly linkerFlags?: (version: string) => readonly string[];
}

const PARTS: readonly Part[] = [
  {
    name: "kube-apiserver",
    module: "k8s.io/kubernetes",
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
    linkerFlags: nameVersion,
  },
  { name: "etcd", module: "go.etcd.io/etcd/server/v3", package: "go.etcd.io/etcd/server/v3" },
];

const PROGRESS_INTERVAL_MS = 15_000;
const CACHE = join(
  process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"),
  "registry-spegel",
  "kube-parts",
);

/**
 * Compiles etcd and kube-apiserver unless the cache has them: from nothing 4 to 5 minutes on two cores, mostly
 * kube-apiserver. A build that was interrupted goes on from Go's own cache.
 *
 * @param report gets a line now and then while something is compiled
 */
export async function buildKubeParts(options: {
  readonly report: (line: string) => void;
  readonly signal: AbortSignal;
}): Promise<KubeParts> {
  const paths: string[] = [];
  for (const part of PARTS) paths.push(await buildPart(part, options));
  const [kubeAPIServer = "", etcd = ""] = paths;
  return { etcd, kubeAPIServer };
}

async function buildPart(
  part: Part,
  options: { readonly report: (line: string) => void; readonly signal: AbortSignal },
): Promise<string> {
  const directory = join(import.meta.dirname, part.name);
  const pins = await Promise.all(["go.mod", "go.sum"].map((file) => readFile(join(directory, file), "utf8")));
  const version = new RegExp(`${part.module} (v\\S+)`).exec(pins[0] ?? "")?.[1];
  if (version === undefined) throw new Error(`${part.name}/go.mod does not require ${part.module}`);
  const linkerFlags = ["-s", "-w", ...(part.linkerFlags?.(version) ?? [])].join(" ");
  const key = createHash("sha256").update(pins.join("\0")).update(linkerFlags).digest("hex").slice(0, 12);
  const path = join(CACHE, `${part.name}-${version}-${key}`);
  if (existsSync(path)) return path;
  await mkdir(CACHE, { recursive: true });
  const draft = `${path}.${process.pid}`;
  const startedMs = performance.now();
  options.report(`compiling ${part.name} ${version}`);
  try {
    await compile(part, { directory, linkerFlags, draft, startedMs, ...options });
    await rename(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
  options.report(`compiled ${part.name} ${version} in ${seconds(startedMs)}`);
  return path;
}

async function compile(
  part: Part,
  options: {
    readonly directory: string;
    readonly linkerFlags: string;
    readonly draft: string;
    readonly startedMs: number;
    readonly report: (line: string) => void;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { directory, linkerFlags, draft, startedMs, report, signal } = options;
  const child = spawn(
    findGo(),
    // -v names every package when it is compiled.
    ["build", "-v", "-mod=readonly", "-trimpath", `-ldflags=${linkerFlags}`, "-o", draft, part.package],
    {
      cwd: directory,
      env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "-buildvcs=false" },
      stdio: ["ignore", "ignore", "pipe"],
      signal,
    },
  );
  const output = follow(child);
  const progress = setInterval(
    () => report(`compiling ${part.name}: ${output.lineCount} packages after ${seconds(startedMs)}`),
    PROGRESS_INTERVAL_MS,
  );
  try {
    const [code] = (await once(child, "close")) as [number | null];
    if (code !== 0) throw new Error(`go build ${part.package} failed:\n${output.tail()}`);
  } finally {
    clearInterval(progress);
  }
}

function follow(child: ChildProcess): { readonly lineCount: number; tail(): string } {
  let lineCount = 0;
  let tail = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    lineCount += text.split("\n").length - 1;
    tail = (tail + text).slice(-4000);
  });
  return {
    get lineCount() {
      return lineCount;
    },
    tail: () => tail,
  };
}

/** Without these kube-apiserver calls itself v0.0.0-master. */
function nameVersion(version: string): readonly string[] {
  const [major = "", minor = ""] = version.slice(1).split(".");
  const prefix = "-X k8s.io/component-base/version";
  return [`${prefix}.gitVersion=${version}`, `${prefix}.gitMajor=${major}`, `${prefix}.gitMinor=${minor}`];
}

/** The Go tool chain, in PATH or where its installer puts it. */
function findGo(): string {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/go/bin"];
  const path = folders.map((folder) => join(folder, "go")).find((each) => existsSync(each));
  if (path === undefined) throw new Error("no Go tool chain: install Go 1.26");
  return path;
}

const seconds = (startedMs: number): string => `${Math.round((performance.now() - startedMs) / 1000)} s`;
