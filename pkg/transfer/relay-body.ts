// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import { systemErrorCode } from "#errors";
import { type BufferLease, transferBuffers } from "./buffer-pool.ts";
import { type Client, claimClient } from "./client.ts";
import type { TransferEnd, TransferOutcome } from "./outcome.ts";
import type { PeerBody, RelayOptions } from "./peer-body.ts";
import type { Receiver } from "./peer-connection.ts";
import { isWhole, relayWhole } from "./relay-whole.ts";
import { socketBudget } from "./socket-budget.ts";
import { createTransferWatch, DEFAULT_CLIENT_STALL_TIMEOUT_MS } from "./transfer-watch.ts";

/**
 * Relays body bytes to a client; see `PeerResponse.relayTo`.
 *
 * The kernel writes what arrives into one leased buffer and takes it from there: no bytes are copied in this
 * process. While the client does not take them nothing is read, so the peer is held back by its own full socket.
 */
export async function relayBody(
  body: PeerBody,
  response: ServerResponse,
  options: RelayOptions,
): Promise<TransferOutcome> {
  const { signal } = options;
  const client = await claimClient(response, signal);
  if (client === undefined) return { bytes: 0, ended: signal.aborted ? "aborted" : "client-gone" };
  if (isWhole(body, options)) return relayWhole(body, client, options);
  let lease: BufferLease | undefined;
  try {
    if (body.early.length < options.lengthBytes) lease = await transferBuffers.lease({ signal });
  } catch {
    return { bytes: 0, ended: "aborted" };
  }
  return pump(body, client, lease, options);
}

function pump(
  body: PeerBody,
  client: Client,
  lease: BufferLease | undefined,
  options: RelayOptions,
): Promise<TransferOutcome> {
  const { connection } = body;
  const { hash, leastBytesPerSecond } = options;
  const { promise, resolve } = Promise.withResolvers<TransferOutcome>();
  let bytes = 0;
  const share = socketBudget.lease();
  client.limitUnsent(share.sizeBytes);
  if (share.isSmall) connection.limitUnread(share.sizeBytes);
  /** A block is with the client and must not be overwritten. Nothing is read meanwhile. */
  let lent = false;
  /** The source broke while a block was lent; the outcome waits for the block. */
  let broken: TransferEnd | undefined;

  const watch = createTransferWatch({
    client,
    signal: options.signal,
    stallTimeoutMs: options.stallTimeoutMs,
    clientStallTimeoutMs: options.clientStallTimeoutMs ?? DEFAULT_CLIENT_STALL_TIMEOUT_MS,
    ...(leastBytesPerSecond === undefined ? {} : { progress: { bytes: () => bytes, leastBytesPerSecond } }),
    onEnd(ended) {
      if (body.unread > 0 || !body.sound) connection.close();
      if (!lent) lease?.release();
      share.release();
      resolve({ bytes, ended });
    },
  });

  const receiver: Receiver = {
    // Behind the last byte the connection may serve others, and this buffer too.
    buffer: () => (watch.ended === undefined && body.unread > 0 ? lease?.buffer : undefined),
    onBytes(chunk) {
      if (chunk.length > body.unread) body.sound = false;
      const block = own(chunk).subarray(0, Math.min(chunk.length, body.unread));
      body.unread -= block.length;
      return forward(block);
    },
    onEnd(error) {
      broken = endOfSource(error);
      if (!lent) watch.end(broken);
    },
  };

  const readOn = body.early.length > 0 ? forward(body.early) : blockTaken();
  if (readOn) connection.read(receiver);
  return promise;

  /** The first read of a relay still lands in the buffer that connections share. */
  function own(chunk: Buffer): Buffer {
    if (lease === undefined || chunk.buffer === lease.buffer.buffer) return chunk;
    chunk.copy(lease.buffer);
    return lease.buffer.subarray(0, chunk.length);
  }

  /** Hands a block to the client. True when the source may be read on at once. */
  function forward(received: Buffer): boolean {
    const block = received.subarray(0, options.lengthBytes - bytes);
    if (!client.writable) {
      watch.end("client-gone");
      return false;
    }
    hash?.update(block);
    bytes += block.length;
    if (client.write(block, onReturned)) return blockTaken();
    lent = true;
    watch.waitFor("client");
    return false;
  }

  function onReturned(): void {
    lent = false;
    if (watch.ended !== undefined) lease?.release();
    else if (blockTaken()) connection.read(receiver);
  }

  /** Everything received so far is with the kernel. True when there is more to read. */
  function blockTaken(): boolean {
    if (!client.writable) watch.end("client-gone");
    else if (bytes === options.lengthBytes) watch.end("complete");
    else if (broken !== undefined) watch.end(broken);
    else if (body.unread === 0) watch.end("source-closed");
    else watch.waitFor("source");
    return watch.ended === undefined;
  }
}

function endOfSource(error: Error | undefined): TransferEnd {
  const code = systemErrorCode(error);
  return error === undefined || code === "ECONNRESET" || code === "EPIPE" ? "source-closed" : "source-failed";
}
