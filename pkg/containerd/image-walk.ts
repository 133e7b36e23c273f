// SPDX-License-Identifier: Apache-2.0
import { childrenOf, type Digest, isManifestMediaType, MAX_MANIFEST_BYTES } from "#oci";
import { type Content, readContentBytes } from "#store";
import type { ListedContent } from "./contents.ts";

type Call = { readonly signal: AbortSignal };

// An index of indexes of manifests has depth 3; nothing real is deeper.
const MAX_DEPTH = 8;
// What one walk over all images reads at most; what is left out waits for the next walk, since read ones are kept.
const MAX_READ_BYTES = 64 * 1024 * 1024;
const MAX_KEPT_CHILDREN = 50_000;

interface Child {
  readonly digest: Digest;
  readonly isManifest: boolean;
}

/** Finds what belongs to an image: index to manifests, manifest to config and layers. */
export interface ImageWalk {
  /** Starts one walk over many images, with one budget for reading. */
  begin(contents: ReadonlyMap<Digest, ListedContent>): Walk;
}

export interface Walk {
  /** The present contents of the image with this manifest or index, itself included. */
  reach(root: Digest, call: Call): Promise<ReadonlySet<Digest>>;
  /** True when the manifest names more than its config, and nothing of that is present. */
  lacksLayers(manifest: Digest, config: Digest, call: Call): Promise<boolean>;
}

/** @param open opens listed content; undefined when it has gone since */
export function createImageWalk(
  open: (digest: Digest, sizeBytes: number, call: Call) => Promise<Content | undefined>,
): ImageWalk {
  // Content is immutable, so its children are as well: each manifest is read once, not once per walk.
  const known = new Map<Digest, readonly Child[]>();
  let keptChildren = 0;

  function keep(digest: Digest, children: readonly Child[]): void {
    if (keptChildren + children.length + 1 > MAX_KEPT_CHILDREN) {
      known.clear();
      keptChildren = 0;
    }
    known.set(digest, children);
    keptChildren += children.length + 1;
  }

  return {
    begin(contents) {
      let readBytes = 0;

      async function children(digest: Digest, call: Call): Promise<readonly Child[]> {
        const kept = known.get(digest);
        if (kept !== undefined) return kept;
        const sizeBytes = contents.get(digest)?.sizeBytes ?? 0;
        if (sizeBytes > MAX_MANIFEST_BYTES || readBytes + sizeBytes > MAX_READ_BYTES) return [];
        readBytes += sizeBytes;
        await using content = await open(digest, sizeBytes, call);
        if (content === undefined) return [];
        const found = parse(await readContentBytes(content, { maxBytes: MAX_MANIFEST_BYTES }));
        keep(digest, found);
        return found;
      }

      return {
        async reach(root, call) {
          const reached = new Set<Digest>();
          let level: readonly Digest[] = contents.has(root) ? [root] : [];
          for (let depth = 0; depth < MAX_DEPTH && level.length > 0; depth++) {
            const next = new Set<Digest>();
            for (const digest of level) {
              reached.add(digest);
              for (const child of await children(digest, call)) {
                if (!contents.has(child.digest) || reached.has(child.digest)) continue;
                if (child.isManifest) next.add(child.digest);
                else reached.add(child.digest);
              }
            }
            level = [...next].filter((digest) => !reached.has(digest));
          }
          return reached;
        },

        async lacksLayers(manifest, config, call) {
          const layers = (await children(manifest, call)).filter((child) => child.digest !== config);
          return layers.length > 0 && !layers.some((layer) => contents.has(layer.digest));
        },
      };
    },
  };
}

// A manifest that is malformed belongs to an image that cannot be pulled; it has no children to tell of.
function parse(bytes: Uint8Array): readonly Child[] {
  try {
    return childrenOf(bytes).map(({ digest, mediaType }) => ({
      digest,
      isManifest: isManifestMediaType(mediaType),
    }));
  } catch {
    return [];
  }
}
