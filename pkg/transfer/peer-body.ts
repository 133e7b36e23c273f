// SPDX-License-Identifier: Apache-2.0
import type { Hash } from "node:crypto";
import type { PeerConnection } from "./peer-connection.ts";

/** The part of a body that was not taken yet; shared by the ways to take it. */
export interface PeerBody {
  readonly connection: PeerConnection;
  /** Bytes that came together with the head. */
  early: Buffer;
  /** Body bytes that were not received yet, without `early`; Infinity when the body lasts until the connection closes. */
  unread: number;
  /** False once more arrived than the body has, or it ended early: the connection cannot be used again. */
  sound: boolean;
}

export interface ReadAllOptions {
  readonly limitBytes: number;
  readonly signal: AbortSignal;
  /** Longest time without a byte; default 5 s. */
  readonly stallTimeoutMs?: number;
}

export interface HashAllOptions {
  /** As `node:crypto` names it. */
  readonly algorithm: string;
  readonly signal: AbortSignal;
  /** Longest time without a byte. */
  readonly stallTimeoutMs: number;
}

export interface RelayOptions {
  /** How many body bytes the client is to get. */
  readonly lengthBytes: number;
  readonly signal: AbortSignal;
  /** Longest silence of the peer while we wait for it. Time in which the client takes nothing does not count. */
  readonly stallTimeoutMs: number;
  /**
   * The least that the peer must deliver, asked anew with every look. Time waited for the peer is a debt that bytes
   * at this rate pay off; a debt of more than `stallTimeoutMs` ends the relay as `source-slow`. Without it a peer may
   * be as slow as it likes, as long as it is never silent.
   */
  leastBytesPerSecond?(): number;
  /** Longest time in which the client may take nothing; default 60 s. */
  readonly clientStallTimeoutMs?: number;
  /** Gets every byte that goes to the client, in order. */
  readonly hash?: Hash;
}
