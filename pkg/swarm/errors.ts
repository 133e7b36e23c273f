// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type SwarmErrorCode =
  | "SWARM_ADDRESS_INVALID"
  | "SWARM_BOOTSTRAP_FAILED"
  | "SWARM_CERTIFICATE_INVALID"
  | "SWARM_CLOSED"
  | "SWARM_HANDSHAKE_FAILED"
  | "SWARM_IDENTITY_INVALID"
  | "SWARM_LISTEN_FAILED"
  | "SWARM_MESSAGE_INVALID"
  | "SWARM_PEER_UNREACHABLE";

/** Everything this package throws. */
export class SwarmError extends CodedError<SwarmErrorCode> {
  override readonly name = "SwarmError";
}
