// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type TransferErrorCode =
  /** The caller asked for something that cannot be written as one HTTP/1.1 request. */
  | "TRANSFER_REQUEST_INVALID"
  /** A range outside of the content. */
  | "TRANSFER_RANGE_INVALID"
  | "TRANSFER_CONNECT_FAILED"
  | "TRANSFER_CONNECT_TIMEOUT"
  /** The connection ended before the response head was complete. */
  | "TRANSFER_HEAD_INCOMPLETE"
  | "TRANSFER_HEAD_TOO_LARGE"
  | "TRANSFER_HEAD_INVALID"
  /** Content-Length is doubled, not decimal or beyond 2^53-1. */
  | "TRANSFER_LENGTH_INVALID"
  /** A transfer or content coding; a blob under a coding is not the blob. */
  | "TRANSFER_CODING_UNSUPPORTED"
  | "TRANSFER_BODY_TOO_LARGE"
  /** Fewer bytes than the head promised. */
  | "TRANSFER_BODY_INCOMPLETE"
  /** More bytes than the head promised. */
  | "TRANSFER_BODY_SURPLUS"
  /** The body was taken before; it can be read once. */
  | "TRANSFER_BODY_TAKEN"
  | "TRANSFER_SOURCE_STALLED"
  /** Local bytes could not be read, or the file is shorter than was said. */
  | "TRANSFER_SOURCE_FAILED";

export class TransferError extends CodedError<TransferErrorCode> {
  override readonly name = "TransferError";
}
