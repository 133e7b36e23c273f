// SPDX-License-Identifier: Apache-2.0
/**
 * OCI words: digests, references, distribution requests, media types, error bodies.
 *
 * Pure functions over strings and bytes; no I/O. Rules follow the OCI distribution and image specifications
 * and, where they are silent, what Spegel does on the wire.
 */
export { type Digest, digestAlgorithm, digestHex, isDigest, parseDigest, sha256Digest } from "./digest.ts";
export {
  type ContentKind,
  type DistributionRequest,
  type DistributionTarget,
  parseDistributionPath,
} from "./distribution.ts";
export { type DistributionErrorCode, distributionErrorBody } from "./error-body.ts";
export { OCIError, type OCIErrorCode } from "./errors.ts";
export {
  childrenOf,
  type Descriptor,
  detectMediaType,
  isManifestMediaType,
  MANIFEST_MEDIA_TYPES,
  MAX_MANIFEST_BYTES,
  MEDIA_TYPE_OCTET_STREAM,
  parseManifest,
} from "./manifest.ts";
export { type ImageReference, parseImageReference, parseRegistryURL } from "./reference.ts";
