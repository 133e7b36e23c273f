// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import { type ByteRange, type ByteSource, checkRange } from "./byte-source.ts";
import { type Client, claimClient, cutResponse, endResponse, writeBlock } from "./client.ts";
import { kernelCalls } from "./kernel-calls.ts";
import type { TransferOutcome } from "./outcome.ts";
import type { SendOptions } from "./send-options.ts";
import { bytesLeft, offset, type Sending, sendRing } from "./send-ring.ts";
import { sendBySendfile } from "./send-sendfile.ts";
import { SMALL_BYTES, sendSmall } from "./send-small.ts";
import { socketBudget } from "./socket-budget.ts";
import { createTransferWatch, DEFAULT_CLIENT_STALL_TIMEOUT_MS } from "./transfer-watch.ts";

const KIB = 1024;
/** Content in memory is handed on in pieces, so that a slow client's progress is seen. */
const MEMORY_BLOCK_BYTES = 256 * KIB;

/**
 * Sends a part of a local content as the body of `response`. The head, with its Content-Length, was given by
 * `response.writeHead`; nothing of the body was written yet. The server must not have a `timeout` on its sockets.
 *
 * It settles when the last byte was handed to the kernel and the response ended, or else when the response was cut.
 * In both cases the content is not in use any more and may be closed.
 *
 * @throws TransferError TRANSFER_RANGE_INVALID; nothing was sent then
 */
export async function sendContent(
  content: ByteSource,
  range: ByteRange,
  response: ServerResponse,
  options: SendOptions,
): Promise<TransferOutcome> {
  checkRange(range, content.sizeBytes);
  if (range.end - range.start < SMALL_BYTES) return sendSmall(content, range, response, options);
  const client = await claimClient(response, options.signal);
  if (client === undefined || !client.writable || options.signal.aborted) {
    cutResponse(response);
    return { bytes: 0, ended: options.signal.aborted ? "aborted" : "client-gone" };
  }
  const sending = startSending(range, response, client, options);
  try {
    await sendBlocks(sending, content, options.method ?? "sendfile");
    await finish(sending, response);
  } catch {
    sending.watch.end("source-failed"); // unless it ended before: then the failure only followed from that
  }
  return { bytes: sending.bytes, ended: sending.watch.ended ?? "source-failed" };
}

function startSending(
  range: ByteRange,
  response: ServerResponse,
  client: Client,
  options: SendOptions,
): Sending {
  const share = socketBudget.lease();
  client.limitUnsent(share.sizeBytes);
  const watch = createTransferWatch({
    client,
    signal: options.signal,
    stallTimeoutMs: options.stallTimeoutMs ?? Number.POSITIVE_INFINITY,
    clientStallTimeoutMs: options.clientStallTimeoutMs ?? DEFAULT_CLIENT_STALL_TIMEOUT_MS,
    onEnd(reason) {
      share.release();
      // Closing the socket also calls back every pending write, so nothing waits for a client that is gone.
      if (reason !== "complete") cutResponse(response);
    },
  });
  return { range, client, watch, bytes: 0 };
}

async function sendBlocks(sending: Sending, content: ByteSource, method: "sendfile" | "ring"): Promise<void> {
  if (content.kind === "memory") return sendMemory(sending, content.bytes);
  const kernel = method === "sendfile" ? kernelCalls() : undefined;
  if (kernel !== undefined) await sendBySendfile(sending, content.fd, kernel);
  // All of it without node:ffi and over TLS; the rest when the file system cannot do sendfile.
  await sendRing(sending, content.fd, Number.POSITIVE_INFINITY);
}

async function sendMemory(sending: Sending, bytes: Uint8Array): Promise<void> {
  const { client, watch } = sending;
  while (bytesLeft(sending) > 0 && watch.ended === undefined) {
    const position = offset(sending);
    const block = bytes.subarray(position, position + Math.min(MEMORY_BLOCK_BYTES, bytesLeft(sending)));
    watch.waitFor("client");
    if (await writeBlock(client, block)) sending.bytes += block.length;
    else watch.end("client-gone");
  }
}

/** Ends the response and waits until the kernel has all of it. */
async function finish(sending: Sending, response: ServerResponse): Promise<void> {
  const { watch } = sending;
  if (watch.ended !== undefined) return;
  watch.waitFor("client");
  const { promise, resolve } = Promise.withResolvers<void>();
  response.once("finish", () => watch.end("complete"));
  watch.whenEnded(resolve);
  endResponse(response);
  await promise;
}
