// SPDX-License-Identifier: Apache-2.0
import { hash } from "node:crypto";

/** Stands for `@chainsafe/as-sha256` in bundles: OpenSSL instead of WebAssembly. */
export function digest(data: Uint8Array): Uint8Array {
  return hash("sha256", data, "buffer");
}
