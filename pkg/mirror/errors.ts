// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type MirrorErrorCode =
  /** The peer answered with a status other than 200 or 206. */
  | "PEER_STATUS"
  /** The peer's head is unusable: wrong or missing type, length, digest or range. */
  | "PEER_HEAD_INVALID"
  /** The peer's bytes do not hash to the digest. */
  | "PEER_DIGEST_MISMATCH"
  /** The peer did not answer in time. */
  | "PEER_TIMEOUT"
  /** A setting of the mirror is wrong. */
  | "MIRROR_SETTING_INVALID";

export class MirrorError extends CodedError<MirrorErrorCode> {
  override readonly name = "MirrorError";
}
