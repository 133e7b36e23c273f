// SPDX-License-Identifier: Apache-2.0
import { RE2JS } from "re2js";
import { errorMessage } from "#errors";
import { parseRegistryURL } from "#oci";
import { MirrorError } from "./errors.ts";

/** Which registries and names this node deals with; applied to requests and to what is announced. */
export interface Filters {
  /** False when there is an allow list and the registry (host with port, as in `ns`) is not on it. */
  admitsRegistry(registry: string): boolean;
  /** False when the registry is not admitted or an expression matches `registry/repository[:tag]`. */
  admitsName(name: {
    readonly registry: string;
    readonly repository: string;
    readonly tag?: string | undefined;
  }): boolean;
  /** True when nothing is ever refused. */
  readonly empty: boolean;
}

/**
 * Builds filters from `--mirrored-registries` (URLs, `*` or `_default`) and `--registry-filters` (RE2, unanchored).
 *
 * RE2 runs in linear time, so a long name cannot stall the node. A request by digest has no tag: an expression
 * such as `:latest$` leaves content pullable by digest, as in Spegel.
 *
 * @throws MirrorError MIRROR_SETTING_INVALID naming the entry
 */
export function createFilters(settings: {
  readonly mirroredRegistries: readonly string[];
  readonly registryFilters: readonly string[];
}): Filters {
  const { mirroredRegistries } = settings;
  const isWildcard = (entry: string): boolean => entry === "*" || entry === "_default";
  const hosts = new Set(
    mirroredRegistries.filter((entry) => !isWildcard(entry)).map((entry) => parseRegistryURL(entry).host),
  );
  const admitsAll = mirroredRegistries.length === 0 || mirroredRegistries.some(isWildcard);
  const expressions = settings.registryFilters.map(compile);

  const admitsRegistry = (registry: string): boolean => admitsAll || hosts.has(registry);
  return {
    empty: admitsAll && expressions.length === 0,
    admitsRegistry,
    admitsName({ registry, repository, tag }) {
      if (!admitsRegistry(registry)) return false;
      const name = `${registry}/${repository}${tag === undefined ? "" : `:${tag}`}`;
      return !expressions.some((expression) => expression.matcher(name).find());
    },
  };
}

function compile(expression: string): RE2JS {
  try {
    return RE2JS.compile(expression);
  } catch (error) {
    throw new MirrorError({
      code: "MIRROR_SETTING_INVALID",
      message: `registry filter "${expression.slice(0, 200)}" is not an RE2 expression: ${errorMessage(error)}`,
      cause: error,
    });
  }
}
