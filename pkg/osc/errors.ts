// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type OSCErrorCode =
  /** The OperatingSystemConfig has a field of the wrong type; `message` names it. */
  | "OSC_OBJECT_INVALID"
  /** The Extension's providerStatus cannot be used; `message` names the field. */
  | "OSC_STATUS_INVALID"
  /** The operator's options cannot be used; `message` names the option. */
  | "OSC_OPTIONS_INVALID";

export class OSCError extends CodedError<OSCErrorCode> {
  override readonly name = "OSCError";
}
