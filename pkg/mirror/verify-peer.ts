// SPDX-License-Identifier: Apache-2.0
import type { Semaphore } from "#async";
import { type Digest, digestAlgorithm, digestHex } from "#oci";
import type { PeerResponse } from "#transfer";
import { MirrorError } from "./errors.ts";

export interface VerifyOptions {
  /** How long it may take in all; containerd waits for its answer meanwhile. */
  readonly limitMs: number;
  readonly stallTimeoutMs: number;
  /** How many blobs are read at the same time. */
  readonly slots: Semaphore;
  readonly signal: AbortSignal;
}

/**
 * Reads a whole blob from a peer that has just answered, keeps nothing of it, and says whether it is what its digest
 * says. The answer is used up by that.
 *
 * @throws MirrorError PEER_TIMEOUT; TransferError; the signal's reason
 */
export async function verifyPeer(
  response: PeerResponse,
  digest: Digest,
  options: VerifyOptions,
): Promise<boolean> {
  const deadline = AbortSignal.timeout(options.limitMs);
  const signal = AbortSignal.any([options.signal, deadline]);
  const { stallTimeoutMs } = options;
  const algorithm = digestAlgorithm(digest);
  try {
    using _slot = await options.slots.acquire({ signal });
    return (await response.hashAll({ algorithm, signal, stallTimeoutMs })) === digestHex(digest);
  } catch (error) {
    options.signal.throwIfAborted();
    if (!deadline.aborted) throw error;
    throw new MirrorError({
      code: "PEER_TIMEOUT",
      message: `peer took more than ${options.limitMs} ms to show that it has ${digest}`,
    });
  }
}
