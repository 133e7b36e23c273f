// SPDX-License-Identifier: Apache-2.0
import { read } from "node:fs";
import { TransferError } from "./errors.ts";

/**
 * Reads once at `offset` on the thread pool, so that a slow disk holds up nobody else.
 *
 * It resolves only when the system call returned: until then the caller must neither close the descriptor nor use
 * the buffer.
 *
 * @throws TransferError TRANSFER_SOURCE_FAILED on a read error, or at the end of the file: content has a known size
 */
export function readBlock(fd: number, buffer: Buffer, lengthBytes: number, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, buffer, 0, lengthBytes, offset, (error, count) => {
      if (error === null && count > 0) resolve(count);
      else reject(sourceFailed(error ?? undefined, offset));
    });
  });
}

export function sourceFailed(cause: unknown, offset: number): TransferError {
  return new TransferError({
    code: "TRANSFER_SOURCE_FAILED",
    message:
      cause === undefined ? `the file ends at byte ${offset}` : `cannot read the file at byte ${offset}`,
    cause,
  });
}
