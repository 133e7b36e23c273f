// SPDX-License-Identifier: Apache-2.0

/** Why a transfer ended; see `TransferOutcome`. */
export type TransferEnd =
  /** Every byte that was asked for was handed on. */
  | "complete"
  /** The source was silent for longer than its bound while we waited for it. */
  | "source-stalled"
  /** The source went on sending, but so little that waiting for it costs more than another source would. */
  | "source-slow"
  /** The source ended early: closed, reset, or it promised less than was asked for. */
  | "source-closed"
  /** The receiving side closed, or took nothing for longer than its bound. */
  | "client-gone"
  /** The caller's signal aborted. */
  | "aborted"
  /** The source broke in another way (read error, shorter file). */
  | "source-failed";

/**
 * How many body bytes went to the client, in order and without a gap, and why it stopped. An expected end is a
 * value, never an exception: after `bytes` the transfer can be resumed from another source.
 */
export interface TransferOutcome {
  readonly bytes: number;
  readonly ended: TransferEnd;
}
