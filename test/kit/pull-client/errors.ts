// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type PullErrorCode =
  /** hosts.toml is malformed. */
  | "PULL_HOSTS_INVALID"
  /** Every host said 404, or no host may be asked. */
  | "PULL_NOT_FOUND"
  /** No host delivered, and at least one failed otherwise than by 404. */
  | "PULL_REFUSED"
  | "PULL_MANIFEST_INVALID"
  | "PULL_PLATFORM_MISSING"
  | "PULL_DIGEST_MISMATCH"
  | "PULL_SIZE_MISMATCH"
  /** A body was reset, or cut again and again without a byte between. */
  | "PULL_CONNECTION_LOST"
  /** Not one byte for the progress timeout. */
  | "PULL_STALLED";

export class PullError extends CodedError<PullErrorCode> {
  override readonly name = "PullError";
}
