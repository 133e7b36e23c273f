// SPDX-License-Identifier: Apache-2.0
/**
 * Images as OCI image layout folders: made to measure, or read from what a build left behind.
 *
 * Made images are deterministic: the same specification gives the same digests on the same Node version
 * (compressors may change with it), and their layers cannot be compressed or deduplicated by accident.
 */

export {
  type ImageLayout,
  type ImageObject,
  type ImageObjectKind,
  type Platform,
  readImageLayout,
} from "./layout.ts";
export { type ImageSpecification, makeImage } from "./make-image.ts";
export { readImageFile } from "./read-image-file.ts";
