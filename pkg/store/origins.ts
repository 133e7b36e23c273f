// SPDX-License-Identifier: Apache-2.0
import type { ContentOrigin } from "./content-store.ts";

// Content of more places than this is remembered for the first ones only; one is enough to pass a filter.
const MAX_ORIGINS = 64;

/** The origins with one more, each once. */
export function mergeOrigin(
  origins: readonly ContentOrigin[],
  added: ContentOrigin | undefined,
): readonly ContentOrigin[] {
  if (added === undefined || origins.length >= MAX_ORIGINS) return origins;
  const known = origins.some(
    (each) => each.registry === added.registry && each.repository === added.repository,
  );
  return known ? origins : [...origins, { registry: added.registry, repository: added.repository }];
}
