// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();

/** A decimal number, as Gardener's secrets manager writes its checksums into labels. */
export function checksum(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return sha256(text).readBigUInt64BE(0).toString(10);
}

/**
 * `<name>-<8 hex>`, and `-<5 hex>` more once it was rotated: whatever changes the content changes the name.
 * @param rotationSeconds Unix seconds of the rotation
 */
export function secretName(name: string, checksums: string, rotationSeconds: number | undefined): string {
  const suffix =
    rotationSeconds === undefined ? "" : `-${sha256(String(rotationSeconds)).toString("hex").slice(0, 5)}`;
  return `${name}-${sha256(checksums).toString("hex").slice(0, 8)}${suffix}`;
}
