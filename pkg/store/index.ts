// SPDX-License-Identifier: Apache-2.0
/**
 * The content a node holds: what can be served, and what may be advertised.
 *
 * A contract with a compliance kit (`#store/testing`). Implementations: `createMemoryStore` and
 * `openOCILayoutStore` here, containerd's content store in `#containerd`. "Not here" is `undefined`, never an
 * exception; an exception means the store could not answer.
 */
export { type BlobFiles, createBlobFiles } from "./blob-file.ts";
export { type ChangeFeed, createChangeFeed } from "./change-feed.ts";
export { readContentBytes } from "./content-bytes.ts";
export type {
  Content,
  ContentEntry,
  ContentInfo,
  ContentOrigin,
  ContentStore,
  ImageEntry,
  Inventory,
  StoreChange,
  WritableContentStore,
} from "./content-store.ts";
export { StoreError, type StoreErrorCode } from "./errors.ts";
export { createGuardedStore, type GuardedStore, type GuardedStoreOptions } from "./guarded-store.ts";
export { createMemoryStore, type MemoryStore } from "./memory.ts";
export { type OCILayoutOptions, openOCILayoutStore } from "./oci-layout.ts";
export { mergeOrigin } from "./origins.ts";
