// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type OCIErrorCode =
  | "OCI_DIGEST_INVALID"
  | "OCI_REFERENCE_INVALID"
  | "OCI_REGISTRY_URL_INVALID"
  | "OCI_MANIFEST_INVALID";

export class OCIError extends CodedError<OCIErrorCode> {
  override readonly name = "OCIError";
}
