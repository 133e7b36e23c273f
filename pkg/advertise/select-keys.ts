// SPDX-License-Identifier: Apache-2.0
import { type ImageReference, parseImageReference } from "#oci";
import type { ContentEntry, ContentOrigin, ImageEntry, Inventory } from "#store";
import type { AdvertisedCounts, Filters } from "./ports.ts";

/** The metrics label of content whose origin nobody knows. */
const NO_REGISTRY = "unknown";
const MAX_VERDICTS = 10_000;

/** What a node with this inventory announces. */
export interface SelectedKeys extends AdvertisedCounts {
  readonly keys: ReadonlySet<string>;
}

/**
 * Chooses what to announce: the digest of every admitted content, and `registry/repository:tag` of every admitted tag
 * whose content is there.
 *
 * Content is admitted when one of its origins is. Content without a known origin (imported or built on the node, and of
 * no image) is announced only when there are no filters: nobody could say that it may be. A name with tag and digest is
 * no tag key, since nobody can resolve it by its tag.
 */
export function selectKeys(inventory: Inventory, filters: Filters): SelectedKeys {
  const keys = new Set<string>();
  const tags = new Map<string, number>();
  const imageDigests = new Map<string, number>();
  const contentDigests = new Map<string, number>();
  const admits = createContentFilter(filters);
  const present = new Set<string>();

  for (const content of inventory.contents) {
    present.add(content.digest);
    const origins = admits(content);
    if (origins === undefined) continue;
    keys.add(content.digest);
    const registries = new Set(origins.map((each) => each.registry));
    for (const registry of registries.size === 0 ? [NO_REGISTRY] : registries)
      increment(contentDigests, registry);
  }

  const counted = new Set<string>();
  for (const image of inventory.images) {
    const reference = referenceOf(image);
    if (reference === undefined || !present.has(image.digest)) continue;
    const { registry, repository, tag, digest } = reference;
    const imageKey = `${registry} ${image.digest}`;
    if (keys.has(image.digest) && filters.admitsName({ registry, repository }) && !counted.has(imageKey)) {
      counted.add(imageKey);
      increment(imageDigests, registry);
    }
    if (tag === undefined || digest !== undefined || !filters.admitsName({ registry, repository, tag }))
      continue;
    keys.add(image.name);
    increment(tags, registry);
  }
  return { keys, tags, imageDigests, contentDigests };
}

/** @returns the admitted origins of content, undefined when it is not to be announced; asks once per origin */
export function createContentFilter(
  filters: Filters,
): (content: ContentEntry) => readonly ContentOrigin[] | undefined {
  const verdicts = new Map<string, boolean>();
  const admitsOrigin = ({ registry, repository }: ContentOrigin): boolean => {
    const key = `${registry}/${repository}`;
    const verdict = verdicts.get(key) ?? filters.admitsName({ registry, repository });
    if (verdicts.size >= MAX_VERDICTS) verdicts.clear();
    verdicts.set(key, verdict);
    return verdict;
  };
  return ({ origins }) => {
    if (filters.empty) return origins;
    const admitted = origins.filter(admitsOrigin);
    return admitted.length === 0 ? undefined : admitted;
  };
}

function referenceOf(image: ImageEntry): ImageReference | undefined {
  try {
    return parseImageReference(image.name);
  } catch {
    return undefined;
  }
}

function increment(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
