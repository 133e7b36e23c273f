// SPDX-License-Identifier: Apache-2.0
import {
  ConfigError,
  type ConfigProblem,
  createTypeValidator,
  loadSettings,
  type Settings,
  usage,
} from "#config";
import { listenAddressProblem } from "#http";
import { LOG_LEVELS, type LogLevel } from "#log";
import type { IPFamily } from "#nodelist";

/** The settings of `bootstrapper` after parsing. */
export interface BootstrapperFlags {
  readonly listenAddress: string;
  readonly healthAddress: string;
  readonly metricsAddress: string;
  readonly certificateDirectory: string;
  /** Nodes come from this file, else from the cluster of `kubeconfig`, else from the pod's own cluster. */
  readonly nodesFile?: string;
  readonly kubeconfig?: string;
  readonly ipFamilies: readonly IPFamily[];
  readonly limit: number;
  readonly shutdownDelaySeconds: number;
  readonly logLevel: LogLevel;
}

const FAMILIES: readonly IPFamily[] = ["IPv4", "IPv6"];
const MAX_LIMIT = 1000;
const MAX_SHUTDOWN_DELAY_SECONDS = 300;

const SETTINGS: Settings = {
  listenAddress: { type: "string", default: ":8443", description: "Address of GET /bootstrap-nodes (mTLS)." },
  healthAddress: { type: "string", default: ":8081", description: "Address of /healthz and /readyz." },
  metricsAddress: { type: "string", default: ":8080", description: "Address of /metrics." },
  certificateDirectory: {
    type: "string",
    description:
      "Folder with tls.crt, tls.key and the ca.crt that client certificates are verified with. Required.",
  },
  kubeconfig: {
    type: "string",
    description:
      "Kubeconfig of the cluster whose nodes are listed. Default: KUBECONFIG, else the pod's own cluster.",
  },
  nodesFile: { type: "string", description: "YAML or JSON list of node addresses, instead of a cluster." },
  ipFamilies: {
    type: "array",
    default: ["IPv4"],
    description: "IP families of the nodes, the preferred one first: IPv4, IPv6 or both.",
  },
  limit: { type: "integer", default: 10, description: "Nodes in an answer, at most." },
  shutdownDelaySeconds: {
    type: "integer",
    default: 5,
    description: "Seconds for which a stopping program still answers, not ready.",
  },
  logLevel: {
    type: "string",
    enum: LOG_LEVELS,
    default: "INFO",
    description: "Least severe level that is logged.",
  },
};

/** The text of `--help`. */
export const USAGE: string = usage("registry-spegel-bootstrapper", SETTINGS);

/**
 * Reads flags, environment and file.
 *
 * @throws ConfigError naming every wrong setting by the place it was written
 */
export async function readFlags(input: {
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
}): Promise<BootstrapperFlags> {
  // KUBECONFIG is what every Kubernetes client reads; a file of nodes on the command line has the last word.
  const environment = { ...input.environment, KUBECONFIG: undefined };
  const raw = await loadSettings<RawFlags>(
    { properties: SETTINGS, validate: createTypeValidator(SETTINGS) },
    { ...input, environment },
  );
  const problems = judge(raw);
  if (problems.length > 0) throw new ConfigError({ code: "CONFIG_INVALID", problems });
  return Object.freeze({ ...raw, ipFamilies: splitWords(raw.ipFamilies) as IPFamily[] }) as BootstrapperFlags;
}

interface RawFlags extends Omit<BootstrapperFlags, "ipFamilies" | "certificateDirectory"> {
  readonly ipFamilies: readonly string[];
  readonly certificateDirectory?: string;
}

/** Lists are written with commas or as several words. */
function splitWords(words: readonly string[]): string[] {
  return words.flatMap((word) => word.split(",")).map((word) => word.trim());
}

function judge(flags: RawFlags): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  for (const key of ["listenAddress", "healthAddress", "metricsAddress"] as const) {
    const problem = listenAddressProblem(flags[key]);
    if (problem !== undefined)
      problems.push({ path: `--${key.replace("Address", "-address")}`, message: problem });
  }
  if (flags.certificateDirectory === undefined || flags.certificateDirectory === "") {
    problems.push({ path: "--certificate-directory", message: "is required" });
  }
  if (flags.kubeconfig !== undefined && flags.nodesFile !== undefined) {
    problems.push({ path: "--nodes-file", message: "cannot be combined with --kubeconfig" });
  }
  const families = splitWords(flags.ipFamilies);
  const areKnown = families.every((family) => FAMILIES.some((known) => known === family));
  if (!areKnown || families.length === 0 || new Set(families).size !== families.length) {
    problems.push({ path: "--ip-families", message: "must be IPv4, IPv6 or both" });
  }
  if (flags.limit < 1 || flags.limit > MAX_LIMIT) {
    problems.push({ path: "--limit", message: `must be between 1 and ${MAX_LIMIT}` });
  }
  if (flags.shutdownDelaySeconds < 0 || flags.shutdownDelaySeconds > MAX_SHUTDOWN_DELAY_SECONDS) {
    const message = `must be between 0 and ${MAX_SHUTDOWN_DELAY_SECONDS}`;
    problems.push({ path: "--shutdown-delay-seconds", message });
  }
  return problems;
}
