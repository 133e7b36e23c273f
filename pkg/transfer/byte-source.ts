// SPDX-License-Identifier: Apache-2.0
import { TransferError } from "./errors.ts";

/** A part of a content; both ends are counted from its first byte, and `end` is the last byte: 0 <= start <= end. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** Local bytes that can be read from any offset. Structurally what `#store` opens; the caller keeps and closes it. */
export type ByteSource = { readonly sizeBytes: number } & (
  | { readonly kind: "file"; readonly fd: number }
  | { readonly kind: "memory"; readonly bytes: Uint8Array }
);

/** @throws TransferError TRANSFER_RANGE_INVALID unless the range lies inside of the content */
export function checkRange(range: ByteRange, sizeBytes: number): void {
  const { start, end } = range;
  if (
    Number.isSafeInteger(start) &&
    Number.isSafeInteger(end) &&
    0 <= start &&
    start <= end &&
    end < sizeBytes
  )
    return;
  throw new TransferError({
    code: "TRANSFER_RANGE_INVALID",
    message: `range ${start}-${end} is not inside of a content of ${sizeBytes} bytes`,
  });
}
