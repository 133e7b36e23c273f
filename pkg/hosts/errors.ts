// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type HostsErrorCode =
  /** A registry or mirror target is not a usable URL. */
  | "HOSTS_SETTING_INVALID"
  /** The folder holds something that cannot be handled: too many entries, too deep, `_backup` is no folder. */
  | "HOSTS_TREE_UNSUPPORTED"
  /** A file or folder cannot be read or written; the message names it. */
  | "HOSTS_ACCESS_FAILED";

export class HostsError extends CodedError<HostsErrorCode> {
  override readonly name = "HostsError";
}
