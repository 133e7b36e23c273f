// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type PkiErrorCode =
  | "PKI_CERTIFICATE_INVALID"
  | "PKI_KEY_INVALID"
  | "PKI_KEY_MISMATCH"
  | "PKI_REQUEST_INVALID";

/** A certificate or key that cannot be used, or one that was asked for with impossible properties. */
export class PkiError extends CodedError<PkiErrorCode> {
  override readonly name = "PkiError";
}
