// SPDX-License-Identifier: Apache-2.0
import { hash } from "node:crypto";
import { type Digest, detectMediaType, digestAlgorithm, digestHex } from "#oci";
import { createChangeFeed } from "./change-feed.ts";
import type { ContentEntry, ContentOrigin, WritableContentStore } from "./content-store.ts";
import { StoreError } from "./errors.ts";
import { mergeOrigin } from "./origins.ts";

interface Held {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
  origins: readonly ContentOrigin[];
}

export interface MemoryStore extends WritableContentStore {
  /** Forgets content; names that point at it stay. Unknown digests are ignored. */
  remove(digest: Digest): void;
  /** Forgets a name. Unknown names are ignored. */
  untag(name: string): void;
}

/** @param options.maxBytes all content together; default 1 GiB */
export function createMemoryStore(options: { readonly maxBytes?: number } = {}): MemoryStore {
  const maxBytes = options.maxBytes ?? 1024 * 1024 * 1024;
  const contents = new Map<Digest, Held>();
  const names = new Map<string, Digest>();
  const feed = createChangeFeed();
  let heldBytes = 0;

  function entry(digest: Digest, held: Held): ContentEntry {
    return { digest, origins: held.origins };
  }

  async function collect(source: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    let sizeBytes = 0;
    for await (const chunk of source) {
      signal.throwIfAborted();
      sizeBytes += chunk.length;
      if (heldBytes + sizeBytes > maxBytes) throw full(maxBytes);
      chunks.push(Uint8Array.from(chunk));
    }
    return Buffer.concat(chunks, sizeBytes);
  }

  return {
    name: "memory",

    async resolve(name, { signal }) {
      signal.throwIfAborted();
      return names.get(name);
    },

    async stat(digest, { signal }) {
      signal.throwIfAborted();
      const held = contents.get(digest);
      return held && { digest, sizeBytes: held.bytes.length, mediaType: held.mediaType };
    },

    async open(digest, { signal }) {
      signal.throwIfAborted();
      const held = contents.get(digest);
      if (held === undefined) return undefined;
      return {
        kind: "memory",
        bytes: held.bytes,
        sizeBytes: held.bytes.length,
        async [Symbol.asyncDispose]() {},
      };
    },

    async inventory({ signal }) {
      signal.throwIfAborted();
      return {
        images: Array.from(names, ([name, digest]) => ({ name, digest })),
        contents: Array.from(contents, ([digest, held]) => entry(digest, held)),
      };
    },

    watch: (watchOptions) => feed.watch(watchOptions),

    async put(digest, source, { signal, origin }) {
      signal.throwIfAborted();
      const bytes = source instanceof Uint8Array ? Uint8Array.from(source) : await collect(source, signal);
      const actual = hash(digestAlgorithm(digest), bytes, "hex");
      if (actual !== digestHex(digest)) throw mismatch(digest, actual);
      const known = contents.get(digest);
      if (known === undefined && heldBytes + bytes.length > maxBytes) throw full(maxBytes);
      const held = known ?? { bytes, mediaType: detectMediaType(bytes), origins: [] };
      if (known === undefined) heldBytes += bytes.length;
      held.origins = mergeOrigin(held.origins, origin);
      contents.set(digest, held);
      feed.publish({ kind: "added", content: entry(digest, held) });
    },

    async tag(name, digest, { signal }) {
      signal.throwIfAborted();
      if (!contents.has(digest)) throw missing(digest);
      names.set(name, digest);
      feed.publish({ kind: "changed" });
    },

    remove(digest) {
      heldBytes -= contents.get(digest)?.bytes.length ?? 0;
      if (contents.delete(digest)) feed.publish({ kind: "changed" });
    },

    untag(name) {
      if (names.delete(name)) feed.publish({ kind: "changed" });
    },
  };
}

/** The error of bytes that are not what their digest says. */
export function mismatch(digest: Digest, actualHex: string): StoreError {
  return new StoreError({
    code: "STORE_DIGEST_MISMATCH",
    message: `bytes hash to ${digestAlgorithm(digest)}:${actualHex}, expected ${digest}`,
  });
}

/** The error of a name given to content that is not there. */
export function missing(digest: Digest): StoreError {
  return new StoreError({ code: "STORE_CONTENT_MISSING", message: `content ${digest} is not in the store` });
}

function full(maxBytes: number): StoreError {
  return new StoreError({
    code: "STORE_UNAVAILABLE",
    message: `memory store holds at most ${maxBytes} bytes`,
  });
}
