// SPDX-License-Identifier: Apache-2.0
import type { RegistryCapability } from "#api/gardener";
import { OSCError } from "./errors.ts";

/** What the operator decides for all Shoots of a seed. */
export interface OSCOptions {
  /** Image with the node executable, pinned by digest; used when the Extension's status names none. */
  readonly image: string;
  /**
   * What containerd may ask spegel for; default pull and resolve. Without `resolve`, tags are resolved by the
   * upstream registry, which then checks the pull secret of the manifest.
   */
  readonly capabilities?: readonly RegistryCapability[];
  /** systemd's MemoryHigh of the daemon; default 80M. */
  readonly memoryHigh?: string;
  /** systemd's MemoryMax of the daemon; default 100M. */
  readonly memoryMax?: string;
  /**
   * systemd's WatchdogSec of the daemon; default 5, with which a daemon that hangs is running again after ten
   * seconds. 0 for an executable that sends no keep-alives: it would be killed again and again.
   */
  readonly watchdogSeconds?: number;
  /** RE2 expressions; names `registry/repository:tag` that match one are neither served nor announced. Default none. */
  readonly registryFilters?: readonly string[];
  /**
   * Whether spegel goes in front of entries with a readiness probe too; default true. The node agent asks all hosts of
   * such an entry before it writes it, so that a daemon that does not start holds up the node's configuration.
   */
  readonly mirrorProbedRegistries?: boolean;
}

/** Absent means the default, so that node settings need not name them. */
type OptionalOptions = "registryFilters" | "mirrorProbedRegistries";

export type NodeOptions = Required<Omit<OSCOptions, OptionalOptions>> & Pick<OSCOptions, OptionalOptions>;

const IMAGE = /^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,1023}$/;
/** All of them go into every node configuration. */
const MAX_FILTERS = 100;
const MAX_FILTER_CHARS = 1000;
const MEMORY = /^[1-9][0-9]{0,11}[KMG]?$/;

/**
 * Fills in the defaults and refuses values that would break a unit file.
 *
 * @throws OSCError OSC_OPTIONS_INVALID
 */
export function resolveOptions(options: OSCOptions): NodeOptions {
  const resolved: NodeOptions = {
    capabilities: ["pull", "resolve"],
    memoryHigh: "80M",
    memoryMax: "100M",
    watchdogSeconds: 5,
    ...options,
  };
  const { watchdogSeconds } = resolved;
  const isWatchdogValid = Number.isInteger(watchdogSeconds) && watchdogSeconds >= 0;
  demand(IMAGE.test(resolved.image), "image", "is not an image reference");
  demand(MEMORY.test(resolved.memoryHigh), "memoryHigh", "is not a size such as 80M");
  demand(MEMORY.test(resolved.memoryMax), "memoryMax", "is not a size such as 100M");
  demand(isWatchdogValid, "watchdogSeconds", "is not a whole number of seconds");
  const isFilter = (filter: string): boolean => filter !== "" && filter.length <= MAX_FILTER_CHARS;
  const filters = resolved.registryFilters ?? [];
  demand(
    filters.length <= MAX_FILTERS && filters.every(isFilter),
    "registryFilters",
    "are too many, too long or empty",
  );
  demand(resolved.capabilities.includes("pull"), "capabilities", "lacks pull");
  for (const capability of resolved.capabilities) {
    demand(capability === "pull" || capability === "resolve", "capabilities", `"${capability}" is not known`);
  }
  return Object.freeze(resolved);
}

function demand(isTrue: boolean, option: string, message: string): void {
  if (!isTrue) throw new OSCError({ code: "OSC_OPTIONS_INVALID", message: `${option} ${message}` });
}
