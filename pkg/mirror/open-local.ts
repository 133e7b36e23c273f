// SPDX-License-Identifier: Apache-2.0
import { type Digest, isManifestMediaType, MEDIA_TYPE_OCTET_STREAM } from "#oci";
import type { Content, ContentInfo, ContentStore } from "#store";
import type { Pull } from "./parse-pull.ts";

/** What the node's own store says to a pull. */
export type Local =
  | {
      readonly found: true;
      readonly info: ContentInfo;
      open(signal: AbortSignal): Promise<Content | undefined>;
    }
  /** `reason` is the message of the distribution error, in Spegel's words. `present` when it is there, but no manifest. */
  | { readonly found: false; readonly present: boolean; readonly reason: string };

/**
 * Looks a pull up in the node's own store.
 *
 * Only a manifest is given as a manifest; anything may be asked for as a blob. A store that cannot answer throws.
 */
export async function openLocal(store: ContentStore, pull: Pull, signal: AbortSignal): Promise<Local> {
  const digest = pull.digest ?? (await store.resolve(pull.key, { signal }));
  if (digest === undefined) return absent(`could not get digest for image tag ${pull.key}`);
  const info = await store.stat(digest, { signal });
  if (info === undefined) return absent(unknownContent(pull, digest));
  const isManifest = isManifestMediaType(info.mediaType);
  if (pull.kind === "manifest" && !isManifest)
    return { found: false, present: true, reason: unknownContent(pull, digest) };
  // A layer may well be a manifest: artifacts carry whatever they like. Its digest says that the bytes are right.
  const described =
    isManifest && pull.kind === "blob" ? { ...info, mediaType: MEDIA_TYPE_OCTET_STREAM } : info;
  return { found: true, info: described, open: (openSignal) => store.open(digest, { signal: openSignal }) };
}

function absent(reason: string): Local {
  return { found: false, present: false, reason };
}

function unknownContent(pull: Pull, digest: Digest): string {
  return `could not get ${pull.kind} ${digest}`;
}
