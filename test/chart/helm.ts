// SPDX-License-Identifier: Apache-2.0
/** Helm and the Kubernetes API schemas, both from Go modules: no binary is downloaded. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { parseAllDocuments } from "yaml";

const HELM_VERSION = "v3.22.0";
export const KUBERNETES_VERSION = "v1.36.3";

const CACHE = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "registry-spegel", "bin");
// Modules have to be fetched and compiled the first time: two minutes on an idle machine.
const BUILD_TIMEOUT_MS = 900_000;

const run = promisify(execFile);

/** The path of Helm, compiled when the cache has none of this version. */
async function buildHelm(): Promise<string> {
  const path = join(CACHE, `helm-${HELM_VERSION}`);
  if (existsSync(path)) return path;
  await mkdir(CACHE, { recursive: true });
  const draft = await mkdtemp(join(CACHE, "helm-"));
  try {
    await run(
      "go",
      ["install", "-trimpath", "-ldflags=-s -w", `helm.sh/helm/v3/cmd/helm@${HELM_VERSION}`],
      // Outside of any module, and for this machine.
      { cwd: tmpdir(), env: { ...process.env, GOBIN: draft, CGO_ENABLED: "0" }, timeout: BUILD_TIMEOUT_MS },
    );
    await copyFile(join(draft, "helm"), `${path}.${process.pid}`);
    await rename(`${path}.${process.pid}`, path);
  } finally {
    await rm(draft, { recursive: true });
  }
  return path;
}

/** The folder of a Go module in the module cache, fetched when absent. */
export async function moduleFolder(module: string): Promise<string> {
  const { stdout } = await run("go", ["mod", "download", "-json", module], {
    cwd: tmpdir(),
    timeout: BUILD_TIMEOUT_MS,
  });
  return (JSON.parse(stdout) as { readonly Dir: string }).Dir;
}

export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec?: unknown;
  readonly data?: Readonly<Record<string, string>>;
}

export interface HelmResult {
  readonly ok: boolean;
  readonly output: string;
}

export interface Helm {
  /** Lints as a release pipeline would: a warning is a failure. */
  lint(chart: string, args: readonly string[]): Promise<HelmResult>;
  /** Renders; `output` is the YAML of all objects, or the error. */
  template(chart: string, args: readonly string[], release?: string): Promise<HelmResult>;
}

export async function openHelm(): Promise<Helm> {
  const helm = await buildHelm();
  const call = async (args: readonly string[]): Promise<HelmResult> => {
    const version = `--kube-version=${KUBERNETES_VERSION}`;
    try {
      const { stdout } = await run(helm, [...args, version], { maxBuffer: 16 << 20, timeout: 60_000 });
      return { ok: true, output: stdout };
    } catch (error) {
      const { stdout, stderr } = error as { readonly stdout: string; readonly stderr: string };
      return { ok: false, output: `${stdout}${stderr}` };
    }
  };
  return {
    lint: (chart, args) => call(["lint", "--strict", chart, ...args]),
    template: (chart, args, release = "spegel") =>
      call(["template", release, chart, "--namespace=mirror", ...args]),
  };
}

/** The objects of a rendered chart. A key that stands twice, or a document that is no object, is an error. */
export function parseObjects(yaml: string): KubernetesObject[] {
  return parseAllDocuments(yaml).flatMap((document) => {
    if (document.errors.length > 0) throw document.errors[0];
    const value: unknown = document.toJS();
    return value === null ? [] : [value as KubernetesObject];
  });
}
