// SPDX-License-Identifier: Apache-2.0
/**
 * Who may import whom: one table, and the check that the sources keep to it.
 *
 * Direction is programs -> domains -> contracts -> leaves -> base. Domains never import each other; they
 * meet in `cmd/*`. Each third-party dependency has one home. Imports of types count like imports of values.
 */
import { readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, normalize } from "node:path";
import { isGenerated, isTest, ROOT } from "./sources.ts";

export type Tier = "program" | "domain" | "contract" | "leaf" | "base" | "api";

/** A folder with an `index.ts`, and which other packages of its own tier or of `api` it may use. */
interface PackageRule {
  readonly tier: Tier;
  /** Packages of the same tier that may be imported. Domains have none: they never see each other. */
  readonly also?: readonly string[];
}

/** Every folder of pkg/, by name. A folder that is missing here fails the check, and so does an entry without folder once it is imported. */
export const PACKAGES: Readonly<Record<string, PackageRule>> = {
  mirror: { tier: "domain" },
  advertise: { tier: "domain" },
  swarm: { tier: "domain" },
  containerd: { tier: "domain" },
  hosts: { tier: "domain" },
  extension: { tier: "domain" },
  osc: { tier: "domain" },
  nodelist: { tier: "domain" },
  credentials: { tier: "domain" },
  admission: { tier: "domain" },
  routing: { tier: "contract" },
  store: { tier: "contract" },
  nodelayout: { tier: "contract" },
  kube: { tier: "leaf", also: ["http", "metrics", "log", "config"] },
  http: { tier: "leaf", also: ["metrics", "log"] },
  transfer: { tier: "leaf", also: ["http", "metrics", "log", "oci"] },
  metrics: { tier: "leaf", also: ["log"] },
  log: { tier: "leaf" },
  config: { tier: "leaf" },
  program: { tier: "leaf", also: ["config", "http", "kube", "log", "metrics"] },
  oci: { tier: "leaf" },
  pki: { tier: "leaf" },
  async: { tier: "base", also: ["errors"] },
  errors: { tier: "base" },
};

/** Tiers that a tier may import besides what `also` lists. `api` is words only: leaves get their types from domains. */
const BELOW: Readonly<Record<Tier, readonly Tier[]>> = {
  program: ["domain", "contract", "leaf", "base", "api"],
  domain: ["contract", "leaf", "base", "api"],
  contract: ["leaf", "base"],
  leaf: ["base"],
  base: [],
  api: [],
};

/** Where each dependency may be imported: packages of pkg/, `api`, or a program as `cmd/<name>`. */
export const HOMES: Readonly<Record<string, readonly string[]>> = {
  "@grpc/grpc-js": ["containerd"],
  "@kubernetes/client-node": ["kube"],
  "@libp2p/crypto": ["swarm"],
  "@libp2p/identify": ["swarm"],
  "@libp2p/interface": ["swarm"],
  "@libp2p/kad-dht": ["swarm"],
  "@libp2p/noise": ["swarm"],
  "@libp2p/peer-id": ["swarm"],
  "@libp2p/ping": ["swarm"],
  "@libp2p/tcp": ["swarm"],
  "@libp2p/yamux": ["swarm"],
  "@multiformats/multiaddr": ["swarm"],
  ajv: ["config"],
  libp2p: ["swarm"],
  multiformats: ["swarm"],
  "node-forge": ["pki"],
  pino: ["log"],
  "prom-client": ["metrics"],
  protobufjs: ["api", "containerd"],
  re2js: ["config", "mirror", "advertise"],
  "smol-toml": ["hosts"],
  typebox: ["api"],
  yaml: ["config", "kube", "extension", "osc", "nodelist"],
};

/** `@scope/name/deep` and `name/deep` without the part behind the package's name. */
export function dependencyOf(specifier: string): string {
  const parts = specifier.split("/");
  return specifier.startsWith("@") ? parts.slice(0, 2).join("/") : (parts[0] ?? specifier);
}

export interface ImportEdge {
  readonly from: string;
  readonly specifier: string;
}

/**
 * The specifiers a source imports: static, re-exported, dynamic, with or without `type`.
 * The sources are formatted (that is checked), so that imports stand at the start of a line.
 */
export function importsOf(source: string): string[] {
  const code = source.replace(/^\s*(\/\/|\*|\/\*).*$/gm, "");
  const statements = code.matchAll(/^(?:import|export)\s(?:[^;"'`]*?\sfrom\s*)?"([^"\n]+)"/gm);
  const dynamic = code.matchAll(/\bimport\(\s*"([^"\n]+)"/g);
  return [...statements, ...dynamic].map((match) => match[1] ?? "");
}

/** The unit inside which relative imports are allowed: `pkg/x`, `api/x`, `cmd/x`, `hack`, `test`. */
export function unitOf(file: string): string {
  const [top = "", second = ""] = file.split("/");
  return top === "hack" || top === "test" ? top : `${top}/${second}`;
}

/** Problems of these sources against the table, one line each, and how many files and imports were read. */
export function checkImports(
  files: readonly string[],
  manifest: {
    readonly imports: Readonly<Record<string, string>>;
    readonly dependencies: Readonly<Record<string, string>>;
    readonly devDependencies: Readonly<Record<string, string>>;
  },
  read: (file: string) => string = (file) => readFileSync(`${ROOT}/${file}`, "utf8"),
): { readonly problems: string[]; readonly edges: number } {
  const problems: string[] = [];
  const folders = new Set(
    files.filter((file) => file.startsWith("pkg/")).map((file) => file.split("/")[1] ?? ""),
  );
  for (const folder of folders) {
    if (PACKAGES[folder] === undefined)
      problems.push(`pkg/${folder}: missing in the table of hack/imports.ts`);
  }
  for (const dependency of Object.keys(manifest.dependencies)) {
    if (HOMES[dependency] === undefined)
      problems.push(`package.json: ${dependency} has no home in hack/imports.ts`);
  }
  let edges = 0;
  for (const file of files) {
    for (const specifier of importsOf(read(file))) {
      edges++;
      const problem = judge(file, specifier, manifest);
      if (problem !== undefined) problems.push(`${file}: ${specifier} ${problem}`);
    }
  }
  return { problems, edges };
}

function judge(
  file: string,
  specifier: string,
  manifest: Parameters<typeof checkImports>[1],
): string | undefined {
  if (specifier.startsWith(".")) return judgeRelative(file, specifier);
  if (specifier.startsWith("#")) return judgeInternal(file, specifier, manifest.imports);
  if (specifier.startsWith("node:")) return undefined;
  if (builtinModules.includes(specifier)) return `must be written node:${specifier}`;
  return judgeDependency(file, dependencyOf(specifier), manifest);
}

function judgeRelative(file: string, specifier: string): string | undefined {
  const target = normalize(join(dirname(file), specifier));
  // Generated validators are plain JavaScript with declarations beside them.
  const isKnownKind = /\.(ts|json)$/.test(target) || (target.endsWith(".js") && isGenerated(target));
  if (!isKnownKind) return "has no .ts at its end";
  if (unitOf(target) === unitOf(file)) return undefined;
  if (target === "package.json" && file.startsWith("cmd/")) return undefined;
  // Programs have no #name: tests that run them in one process name their files, as tests of tools do.
  if (file.startsWith("test/") && /^(cmd|hack)\//.test(target)) return undefined;
  // Tools look inside anything.
  if (file.startsWith("hack/")) return undefined;
  return `leaves ${unitOf(file)}; across packages only #names are used`;
}

function judgeInternal(
  file: string,
  specifier: string,
  imports: Readonly<Record<string, string>>,
): string | undefined {
  const target = imports[specifier];
  if (target === undefined) return "is not in the imports of package.json";
  if ((specifier.endsWith("/testing") || specifier.startsWith("#kit/")) && !isTest(file))
    return "is for tests";
  if (specifier.startsWith("#kit/")) return undefined;
  const unit = unitOf(file);
  if (unit === "hack" || unit === "test") return undefined;
  if (normalize(target).startsWith("test/")) return isTest(file) ? undefined : "is for tests";
  const from = packageOf(file);
  const to = packageOf(normalize(target));
  if (unit === unitOf(normalize(target))) return "is its own package; use a relative path";
  if (to === undefined || from === undefined) return "is not in the table of hack/imports.ts";
  if (from.also.includes(to.name)) return undefined;
  if (to.tier === "api" && isTest(file)) return undefined;
  if (BELOW[from.tier].includes(to.tier)) return undefined;
  return `is a ${to.tier}; ${from.name} (${from.tier}) may not import it`;
}

function judgeDependency(
  file: string,
  dependency: string,
  manifest: Parameters<typeof checkImports>[1],
): string | undefined {
  const unit = unitOf(file);
  if (manifest.dependencies[dependency] === undefined && manifest.devDependencies[dependency] === undefined) {
    return "is not in package.json";
  }
  if (unit === "hack" || unit === "test") return undefined;
  if (manifest.devDependencies[dependency] !== undefined) {
    return isTest(file) ? undefined : "is a development dependency";
  }
  const homes = HOMES[dependency] ?? [];
  const here = unit.startsWith("api/") ? "api" : unit.startsWith("cmd/") ? unit : unit.slice("pkg/".length);
  return homes.includes(here) ? undefined : `has its home in ${homes.join(", ") || "no package"}`;
}

function packageOf(
  file: string,
): { readonly name: string; readonly tier: Tier; readonly also: readonly string[] } | undefined {
  const [top, name = ""] = file.split("/");
  if (top === "cmd") return { name: `cmd/${name}`, tier: "program", also: [] };
  if (top === "api") return { name: `api/${name}`, tier: "api", also: API_NAMES };
  const rule = PACKAGES[name];
  return rule === undefined ? undefined : { name, tier: rule.tier, also: rule.also ?? [] };
}

/** Parts of `api` may use each other's words. */
const API_NAMES: readonly string[] = [
  "api/spegel",
  "api/config",
  "api/nodelist",
  "api/gardener",
  "api/containerd",
];
