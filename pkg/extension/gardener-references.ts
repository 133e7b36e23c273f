// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";

/** Lowercase hex of SHA-256. */
export function sha256Hex(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/**
 * Annotations that tell the resource manager's garbage collector which secrets an object uses. An immutable
 * payload secret without one disappears ten minutes after its creation.
 */
export function secretReferences(names: readonly string[]): Record<string, string> {
  const entries = names.map((name): [string, string] => [
    `reference.resources.gardener.cloud/secret-${sha256Hex(name).slice(0, 8)}`,
    name,
  ]);
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}
