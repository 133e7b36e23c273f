// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { OCIError } from "./errors.ts";

declare const digestBrand: unique symbol;
/** `algorithm:hex` with the algorithm's length in lower-case hex, as the OCI image specification's registered algorithms. */
export type Digest = string & { readonly [digestBrand]: true };

// Lengths in hex characters of the registered algorithms and of sha384, which go-digest accepts as well.
const HEX_LENGTH: Readonly<Record<string, number>> = { sha256: 64, sha384: 96, sha512: 128 };
const LOWER_HEX = /^[0-9a-f]+$/;

export function isDigest(text: string): text is Digest {
  const colon = text.indexOf(":");
  if (colon < 0 || text.length > 7 + 128) return false;
  const hex = text.slice(colon + 1);
  return HEX_LENGTH[text.slice(0, colon)] === hex.length && LOWER_HEX.test(hex);
}

/** @throws OCIError OCI_DIGEST_INVALID */
export function parseDigest(text: string): Digest {
  if (isDigest(text)) return text;
  throw new OCIError({
    code: "OCI_DIGEST_INVALID",
    message: `"${text.slice(0, 80)}" is not a digest of the form sha256:<64 lower-case hex characters>`,
  });
}

export function digestAlgorithm(digest: Digest): string {
  return digest.slice(0, digest.indexOf(":"));
}

export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(":") + 1);
}

export function sha256Digest(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}` as Digest;
}
