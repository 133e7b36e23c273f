// SPDX-License-Identifier: Apache-2.0
import { type Digest, isDigest, parseImageReference } from "#oci";
import { type ContentOrigin, mergeOrigin } from "#store";

// containerd keeps one label per registry; the value lists the repositories.
const SOURCE_PREFIX = "containerd.io/distribution.source.";
// What a manifest keeps from garbage collection: one label for the config, one for each layer.
const CONFIG_REFERENCE = "containerd.io/gc.ref.content.config";
const LAYER_REFERENCE_PREFIX = "containerd.io/gc.ref.content.l.";

/**
 * Reads where containerd pulled content from: `containerd.io/distribution.source.<registry>: <repository>[,...]`.
 *
 * One reader hands out one array for all contents of one image, which keeps a list of thousands small.
 */
export function createOriginReader(): (labels: ReadonlyMap<string, string>) => readonly ContentOrigin[] {
  const known = new Map<string, readonly ContentOrigin[]>();
  return (labels) => {
    const sources = Array.from(labels).filter(([label]) => label.startsWith(SOURCE_PREFIX));
    if (sources.length === 0) return NONE;
    const key = sources.flat().join("\n");
    const origins = known.get(key) ?? parse(sources);
    known.set(key, origins);
    return origins;
  };
}

const NONE: readonly ContentOrigin[] = [];

function parse(sources: readonly (readonly [string, string])[]): readonly ContentOrigin[] {
  let origins: readonly ContentOrigin[] = NONE;
  for (const [label, value] of sources) {
    const registry = label.slice(SOURCE_PREFIX.length);
    for (const repository of value.split(",")) {
      if (isOrigin({ registry, repository })) origins = mergeOrigin(origins, { registry, repository });
    }
  }
  return origins;
}

/**
 * The config of a manifest that keeps its config and no layer: what CRI writes with `discard_unpacked_layers = true`,
 * in 1.6, 1.7 and 2.x alike. Undefined for everything else.
 */
export function keptConfigOf(labels: ReadonlyMap<string, string>): Digest | undefined {
  const config = labels.get(CONFIG_REFERENCE) ?? "";
  if (!isDigest(config)) return undefined;
  const keepsLayers = Array.from(labels.keys()).some((label) => label.startsWith(LAYER_REFERENCE_PREFIX));
  return keepsLayers ? undefined : config;
}

/** The origin that an image name tells; undefined for names without a registry, such as CRI's `sha256:...`. */
export function originOfName(name: string): ContentOrigin | undefined {
  try {
    const { registry, repository } = parseImageReference(name);
    return { registry, repository };
  } catch {
    return undefined;
  }
}

// Labels can be set by anybody with access to containerd and end up in metrics.
function isOrigin({ registry, repository }: ContentOrigin): boolean {
  return originOfName(`${registry}/${repository}:any`) !== undefined;
}
