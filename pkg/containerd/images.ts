// SPDX-License-Identifier: Apache-2.0
import { imagesService } from "#api/containerd";
import { type Digest, isDigest } from "#oci";
import type { ImageEntry } from "#store";
import type { ContainerdClient } from "./client.ts";
import { originOfName } from "./content-labels.ts";

type Call = { readonly signal: AbortSignal };

const MAX_NAME_LENGTH = 1024;

/** containerd's image names of the watched namespaces. */
export interface Images {
  resolve(name: string, call: Call): Promise<Digest | undefined>;
  /** Names with a registry, each once; `skipped` are the names that are neither such nor CRI's bare digests. */
  list(call: Call): Promise<{ readonly images: readonly ImageEntry[]; readonly skipped: readonly string[] }>;
}

export function createImages(
  client: ContainerdClient,
  options: { readonly namespaces: readonly string[]; readonly listTimeoutMs: number },
): Images {
  const { namespaces, listTimeoutMs } = options;

  return {
    async resolve(name, { signal }) {
      signal.throwIfAborted();
      if (name === "" || name.length > MAX_NAME_LENGTH) return undefined;
      for (const namespace of namespaces) {
        const answer = await client.call(imagesService.get, { name }, { namespace, signal });
        const digest = answer?.image?.target?.digest ?? "";
        if (isDigest(digest)) return digest;
      }
      return undefined;
    },

    async list({ signal }) {
      const images = new Map<string, ImageEntry>();
      const skipped: string[] = [];
      for (const namespace of namespaces) {
        const answer = await client.call(
          imagesService.list,
          {},
          { namespace, signal, timeoutMs: listTimeoutMs },
        );
        for (const { name, target } of answer?.images ?? []) {
          const digest = target?.digest ?? "";
          if (isDigest(name) || images.has(name)) continue;
          if (isDigest(digest) && originOfName(name) !== undefined) images.set(name, { name, digest });
          else skipped.push(name);
        }
      }
      return { images: [...images.values()], skipped };
    },
  };
}
