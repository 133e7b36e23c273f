// SPDX-License-Identifier: Apache-2.0
import { read } from "node:fs";
import { promisify } from "node:util";
import type { ByteSource } from "#transfer";

const readDescriptor = promisify(read);

/**
 * The first `maxBytes` of open content in memory, all of it when it is not larger. For documents; layers are not read
 * this way. The content stays open.
 */
export async function readContentBytes(
  content: ByteSource,
  options: { readonly maxBytes: number },
): Promise<Uint8Array> {
  const sizeBytes = Math.min(content.sizeBytes, options.maxBytes);
  if (content.kind === "memory") return content.bytes.subarray(0, sizeBytes);
  const bytes = Buffer.allocUnsafe(sizeBytes);
  let filled = 0;
  while (filled < sizeBytes) {
    const { bytesRead } = await readDescriptor(content.fd, bytes, filled, sizeBytes - filled, filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}
