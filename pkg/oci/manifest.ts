// SPDX-License-Identifier: Apache-2.0
import { type Digest, isDigest } from "./digest.ts";
import { OCIError } from "./errors.ts";

/** Larger content is never a manifest here: it is neither parsed nor kept in memory. Spegel's bound. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
// A manifest with more children than this is refused; real indexes have tens.
const MAX_CHILDREN = 4096;

export const MEDIA_TYPE_OCTET_STREAM = "application/octet-stream";
const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG = "application/vnd.oci.image.config.v1+json";
const OCI_EMPTY = "application/vnd.oci.empty.v1+json";
const DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";

/** The four types that are served as manifests, in the order in which they are accepted from peers. */
export const MANIFEST_MEDIA_TYPES: readonly string[] = [
  OCI_MANIFEST,
  DOCKER_MANIFEST,
  OCI_INDEX,
  DOCKER_LIST,
];

export function isManifestMediaType(mediaType: string): boolean {
  return MANIFEST_MEDIA_TYPES.includes(mediaType);
}

/** A content descriptor of the OCI image specification, the fields a mirror needs. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/**
 * The media type that the bytes themselves tell, or octet-stream.
 *
 * Unlike Spegel this never refuses bytes: JSON of an unknown structure is octet-stream, so every existing
 * blob can be served whatever its first byte is.
 */
export function detectMediaType(bytes: Uint8Array): string {
  if (bytes.length === 0 || bytes.length > MAX_MANIFEST_BYTES) return MEDIA_TYPE_OCTET_STREAM;
  const first = bytes.findIndex((byte) => byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d);
  if (bytes[first] !== 0x7b) return MEDIA_TYPE_OCTET_STREAM;
  if (bytes.length === 2 && bytes[1] === 0x7d) return OCI_EMPTY;
  let document: unknown;
  try {
    document = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8"));
  } catch {
    return MEDIA_TYPE_OCTET_STREAM;
  }
  return mediaTypeOf(document);
}

function mediaTypeOf(document: unknown): string {
  if (!isRecord(document)) return MEDIA_TYPE_OCTET_STREAM;
  const declared = document["mediaType"];
  if (document["schemaVersion"] === 2 && typeof declared === "string" && isToken(declared)) return declared;
  if (Array.isArray(document["manifests"])) return OCI_INDEX;
  if (isRecord(document["config"]) && Array.isArray(document["layers"])) return OCI_MANIFEST;
  if (
    typeof document["architecture"] === "string" &&
    typeof document["os"] === "string" &&
    "rootfs" in document
  ) {
    return OCI_CONFIG;
  }
  return MEDIA_TYPE_OCTET_STREAM;
}

// The declared type becomes a response header: only what a media type may look like (RFC 6838 names).
function isToken(text: string): boolean {
  return (
    text.length <= 255 && /^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*\/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*$/.test(text)
  );
}

/** An index or manifest, reduced to what it points at. */
export interface ParsedManifest {
  readonly mediaType: string;
  readonly children: readonly Descriptor[];
}

/**
 * Parses an index or manifest.
 *
 * @returns undefined when the bytes are no index or manifest (a config or a layer)
 * @throws OCIError OCI_MANIFEST_INVALID when they claim to be one and are malformed or too large
 */
export function parseManifest(bytes: Uint8Array): ParsedManifest | undefined {
  const mediaType = detectMediaType(bytes);
  if (!isManifestMediaType(mediaType)) return undefined;
  const document = JSON.parse(Buffer.from(bytes).toString("utf8")) as Record<string, unknown>;
  const listed = mediaType === OCI_INDEX || mediaType === DOCKER_LIST ? "manifests" : "layers";
  const children = document[listed] ?? [];
  if (!Array.isArray(children)) throw invalid(`"${listed}" is not an array`);
  if (children.length > MAX_CHILDREN) throw invalid(`"${listed}" has more than ${MAX_CHILDREN} entries`);
  const all: unknown[] = listed === "layers" ? [document["config"], ...children] : children;
  return {
    mediaType,
    children: all.filter((each) => each !== undefined).map((each, i) => parseDescriptor(each, i)),
  };
}

/** The descriptors an index or manifest points at; none for any other content. @throws as parseManifest */
export function childrenOf(bytes: Uint8Array): readonly Descriptor[] {
  return parseManifest(bytes)?.children ?? [];
}

function parseDescriptor(value: unknown, index: number): Descriptor {
  if (!isRecord(value)) throw invalid(`descriptor ${index} is not an object`);
  const { digest, size, mediaType } = value;
  if (typeof digest !== "string" || !isDigest(digest))
    throw invalid(`descriptor ${index} has no valid digest`);
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw invalid(`descriptor ${index} has no valid size`);
  }
  return {
    digest,
    sizeBytes: size,
    mediaType: typeof mediaType === "string" ? mediaType : MEDIA_TYPE_OCTET_STREAM,
  };
}

function invalid(reason: string): OCIError {
  return new OCIError({ code: "OCI_MANIFEST_INVALID", message: `malformed manifest: ${reason}` });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
