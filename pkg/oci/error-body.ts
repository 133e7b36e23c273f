// SPDX-License-Identifier: Apache-2.0

/** The codes of the distribution specification that a pull-only mirror answers with. */
export type DistributionErrorCode = "BLOB_UNKNOWN" | "MANIFEST_UNKNOWN" | "UNAUTHORIZED";

/**
 * The JSON error body of the distribution specification, byte for byte as Spegel writes it:
 * keys in the order code, detail, message; absent detail and empty message left out; no newline.
 */
export function distributionErrorBody(error: {
  readonly code: DistributionErrorCode;
  readonly message?: string;
  readonly detail?: Readonly<Record<string, unknown>>;
}): string {
  return JSON.stringify({
    errors: [
      {
        code: error.code,
        ...(error.detail === undefined ? {} : { detail: error.detail }),
        ...(error.message === undefined || error.message === "" ? {} : { message: error.message }),
      },
    ],
  });
}
