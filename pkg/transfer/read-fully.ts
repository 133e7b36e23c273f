// SPDX-License-Identifier: Apache-2.0
import type { ByteSource } from "./byte-source.ts";
import { TransferError } from "./errors.ts";
import { readBlock } from "./read-file.ts";

/**
 * All bytes of a small content (a manifest). For content in memory it is a view, not a copy.
 *
 * @throws TransferError TRANSFER_BODY_TOO_LARGE when the content is larger than `limitBytes`; nothing is read then.
 *   TRANSFER_SOURCE_FAILED when the file cannot be read or is shorter than `sizeBytes`
 */
export async function readFully(content: ByteSource, limitBytes: number): Promise<Buffer> {
  const { sizeBytes } = content;
  if (sizeBytes > limitBytes) {
    throw new TransferError({
      code: "TRANSFER_BODY_TOO_LARGE",
      message: `content of ${sizeBytes} bytes, at most ${limitBytes} are read`,
    });
  }
  if (content.kind === "memory") {
    return Buffer.from(content.bytes.buffer, content.bytes.byteOffset, content.bytes.byteLength);
  }
  const whole = Buffer.allocUnsafe(sizeBytes);
  let position = 0;
  while (position < sizeBytes) {
    position += await readBlock(content.fd, whole.subarray(position), sizeBytes - position, position);
  }
  return whole;
}
