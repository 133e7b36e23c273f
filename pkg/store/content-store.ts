// SPDX-License-Identifier: Apache-2.0
import type { Digest } from "#oci";

/** Bytes that can be read from any offset. The opener owns it and disposes it once, whatever happened. */
export type Content = AsyncDisposable & {
  readonly sizeBytes: number;
} & (
    | {
        /** An open regular file: bytes 0..sizeBytes of the descriptor. Never written through. */
        readonly kind: "file";
        readonly fd: number;
      }
    | { readonly kind: "memory"; readonly bytes: Uint8Array }
  );

export interface ContentInfo {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** What the bytes tell (`detectMediaType`); octet-stream for anything that is not OCI JSON. */
  readonly mediaType: string;
}

/** A name that points at content: `registry/repository:tag`, or with `@digest`. */
export interface ImageEntry {
  readonly name: string;
  readonly digest: Digest;
}

/** Where content was pulled from; containerd keeps it as a label on each blob. */
export interface ContentOrigin {
  readonly registry: string;
  readonly repository: string;
}

export interface ContentEntry {
  readonly digest: Digest;
  /** Empty when unknown (imported or built on the node). */
  readonly origins: readonly ContentOrigin[];
}

/** Everything a store holds at one moment. */
export interface Inventory {
  readonly images: readonly ImageEntry[];
  readonly contents: readonly ContentEntry[];
}

/**
 * A hint that the inventory changed. Hints may be lost, doubled or late: whoever needs the truth takes the
 * inventory again. `added` names content that is complete and can be served now.
 */
export type StoreChange =
  | { readonly kind: "added"; readonly content: ContentEntry }
  | { readonly kind: "changed" };

export interface ContentStore {
  /** For logs and metrics: `memory`, `oci-layout`, `containerd`. */
  readonly name: string;
  /** The digest an image name points at. */
  resolve(name: string, options: { readonly signal: AbortSignal }): Promise<Digest | undefined>;
  stat(digest: Digest, options: { readonly signal: AbortSignal }): Promise<ContentInfo | undefined>;
  /** Opens complete content for reading. */
  open(digest: Digest, options: { readonly signal: AbortSignal }): Promise<Content | undefined>;
  inventory(options: { readonly signal: AbortSignal }): Promise<Inventory>;
  /**
   * Hints until the signal aborts (then it ends without an error). Subscribed before it first suspends, so an
   * inventory taken after the first `next()` call misses nothing. It survives a store that goes away: it
   * reconnects by itself and yields `changed` after each reconnection.
   */
  watch(options: { readonly signal: AbortSignal }): AsyncIterable<StoreChange>;
}

/** A store that pulled content can be added to. */
export interface WritableContentStore extends ContentStore {
  /**
   * Adds content; it becomes visible at once and only if the bytes hash to `digest`.
   *
   * @throws StoreError STORE_DIGEST_MISMATCH; nothing is kept then
   */
  put(
    digest: Digest,
    bytes: AsyncIterable<Uint8Array> | Uint8Array,
    options: { readonly signal: AbortSignal; readonly origin?: ContentOrigin },
  ): Promise<void>;
  /** Points a name at content that is present. @throws StoreError STORE_CONTENT_MISSING */
  tag(name: string, digest: Digest, options: { readonly signal: AbortSignal }): Promise<void>;
}
