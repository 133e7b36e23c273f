// SPDX-License-Identifier: Apache-2.0
import { type ConfigProblem, choice, integer, list, loadSettings, type Settings, text, usage } from "#config";
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

const FAMILIES: readonly string[] = ["IPv4", "IPv6"] satisfies IPFamily[];

const SETTINGS: Settings = {
  listenAddress: text("Address of GET /bootstrap-nodes (mTLS).", ":8443"),
  healthAddress: text("Address of /healthz and /readyz.", ":8081"),
  metricsAddress: text("Address of /metrics.", ":8080"),
  certificateDirectory: text(
    "Folder with tls.crt, tls.key and the ca.crt that client certificates are verified with. Required.",
  ),
  kubeconfig: text(
    "Kubeconfig of the cluster whose nodes are listed. Default: KUBECONFIG, else the pod's own cluster.",
  ),
  nodesFile: text("YAML or JSON list of node addresses, instead of a cluster."),
  ipFamilies: list("IP families of the nodes, the preferred one first: IPv4, IPv6 or both.", ["IPv4"]),
  limit: integer("Nodes in an answer, at most.", { default: 10, minimum: 1, maximum: 1000 }),
  shutdownDelaySeconds: integer("Seconds for which a stopping program still answers, not ready.", {
    default: 5,
    minimum: 0,
    maximum: 300,
  }),
  logLevel: choice("Least severe level that is logged.", LOG_LEVELS, "INFO"),
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
  return await loadSettings<BootstrapperFlags>(
    {
      properties: SETTINGS,
      complete: (flags) => ({ ...flags, ipFamilies: splitWords(flags.ipFamilies) as IPFamily[] }),
      judge,
    },
    // KUBECONFIG is what every Kubernetes client reads; a file of nodes on the command line has the last word.
    { ...input, environment: { ...input.environment, KUBECONFIG: undefined } },
  );
}

/** Lists are written with commas or as several words. */
function splitWords(words: readonly string[]): string[] {
  return words.flatMap((word) => word.split(",")).map((word) => word.trim());
}

function judge(flags: BootstrapperFlags): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  for (const key of ["listenAddress", "healthAddress", "metricsAddress"] as const) {
    const message = listenAddressProblem(flags[key]);
    if (message !== undefined) problems.push({ path: `--${key.replace("Address", "-address")}`, message });
  }
  if (!flags.certificateDirectory) problems.push({ path: "--certificate-directory", message: "is required" });
  if (flags.kubeconfig !== undefined && flags.nodesFile !== undefined)
    problems.push({ path: "--nodes-file", message: "cannot be combined with --kubeconfig" });
  const families: readonly string[] = flags.ipFamilies;
  const areKnown = families.every((family) => FAMILIES.includes(family));
  if (!areKnown || families.length === 0 || new Set(families).size !== families.length)
    problems.push({ path: "--ip-families", message: "must be IPv4, IPv6 or both" });
  return problems;
}
