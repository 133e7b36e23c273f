// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type StoreErrorCode =
  | "STORE_DIGEST_MISMATCH"
  | "STORE_CONTENT_MISSING"
  | "STORE_LAYOUT_INVALID"
  | "STORE_UNAVAILABLE";

export class StoreError extends CodedError<StoreErrorCode> {
  override readonly name = "StoreError";
}
