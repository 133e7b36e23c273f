// SPDX-License-Identifier: Apache-2.0
import type { Client } from "./client.ts";
import type { TransferOutcome } from "./outcome.ts";
import type { PeerBody, RelayOptions } from "./peer-body.ts";
import { createTransferWatch, DEFAULT_CLIENT_STALL_TIMEOUT_MS } from "./transfer-watch.ts";

/** True for a body that came together with its head, as small ones do, and is what the client is to get. */
export function isWhole(body: PeerBody, { lengthBytes }: RelayOptions): boolean {
  return lengthBytes > 0 && body.sound && body.unread === 0 && body.early.length === lengthBytes;
}

/**
 * Relays a body that is here as a whole. When the kernel takes it at once, as it nearly always does, the transfer is over with
 * that: nothing waits, so nothing is watched.
 */
export function relayWhole(
  body: PeerBody,
  client: Client,
  options: RelayOptions,
): TransferOutcome | Promise<TransferOutcome> {
  const { early } = body;
  if (!client.writable) return { bytes: 0, ended: "client-gone" };
  options.hash?.update(early);
  const { promise, resolve } = Promise.withResolvers<TransferOutcome>();
  let returned = (): void => {};
  if (client.write(early, () => returned())) {
    return { bytes: early.length, ended: client.writable ? "complete" : "client-gone" };
  }
  const watch = createTransferWatch({
    client,
    signal: options.signal,
    stallTimeoutMs: Number.POSITIVE_INFINITY,
    clientStallTimeoutMs: options.clientStallTimeoutMs ?? DEFAULT_CLIENT_STALL_TIMEOUT_MS,
    onEnd: (ended) => resolve({ bytes: early.length, ended }),
  });
  returned = () => watch.end(client.writable ? "complete" : "client-gone");
  watch.waitFor("client");
  return promise;
}
