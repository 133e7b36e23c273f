// SPDX-License-Identifier: Apache-2.0
import type { ByteRange, ByteSource } from "./byte-source.ts";
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
  return readRange(content, { start: 0, end: sizeBytes - 1 });
}

/**
 * A part of a content that is small enough to be held. For content in memory it is a view, not a copy.
 *
 * @throws TransferError TRANSFER_SOURCE_FAILED when the file cannot be read or ends before the range does
 */
export async function readRange(content: ByteSource, range: ByteRange): Promise<Buffer> {
  const lengthBytes = range.end - range.start + 1;
  if (content.kind === "memory") {
    return Buffer.from(content.bytes.buffer, content.bytes.byteOffset + range.start, lengthBytes);
  }
  const part = Buffer.allocUnsafe(lengthBytes);
  for (let position = 0; position < lengthBytes; ) {
    const rest = part.subarray(position);
    position += await readBlock(content.fd, rest, rest.length, range.start + position);
  }
  return part;
}
