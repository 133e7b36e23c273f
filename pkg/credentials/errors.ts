// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type CredentialsErrorCode =
  /** A secret of another owner has the name that is needed, or secrets change faster than they can be read. */
  "CREDENTIALS_SECRET_TAKEN";

export class CredentialsError extends CodedError<CredentialsErrorCode> {
  override readonly name = "CredentialsError";
}
