// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import type { ByteRange, ByteSource } from "./byte-source.ts";
import { cutResponse, isClientThere, responseClient } from "./client.ts";
import { kernelCalls } from "./kernel-calls.ts";
import type { TransferOutcome } from "./outcome.ts";
import { readRange } from "./read-fully.ts";
import type { SendOptions } from "./send-options.ts";
import { createTransferWatch, DEFAULT_CLIENT_STALL_TIMEOUT_MS } from "./transfer-watch.ts";

const KIB = 1024;
/** Up to here head and body leave in one write. */
export const SMALL_BYTES = 32 * KIB;

/**
 * Sends a body of at most `SMALL_BYTES` together with its head. Bytes that are at hand and that the kernel takes at
 * once, as it nearly always does, are over with that: nothing waits, so nothing is watched.
 */
export async function sendSmall(
  content: ByteSource,
  range: ByteRange,
  response: ServerResponse,
  options: SendOptions,
): Promise<TransferOutcome> {
  if (options.signal.aborted || !isClientThere(response)) {
    cutResponse(response);
    return { bytes: 0, ended: options.signal.aborted ? "aborted" : "client-gone" };
  }
  const body = bytesAtHand(content, range);
  if (body === undefined) return sendWatched(content, range, response, options);
  response.end(body);
  return isWithKernel(response)
    ? { bytes: body.length, ended: "complete" }
    : sendWatched(content, range, response, options, body);
}

/** From memory, or from the page cache where that can be asked without waiting for the disk. */
function bytesAtHand(content: ByteSource, range: ByteRange): Uint8Array | undefined {
  if (content.kind === "memory") return content.bytes.subarray(range.start, range.end + 1);
  const kernel = kernelCalls();
  if (kernel === undefined) return undefined;
  const lengthBytes = range.end - range.start + 1;
  const body = Buffer.allocUnsafe(lengthBytes);
  return kernel.readCached(content.fd, body, lengthBytes, range.start) === lengthBytes ? body : undefined;
}

/** Node tries the system call within `end`; what is left over waits for the client, or for an earlier answer. */
function isWithKernel(response: ServerResponse): boolean {
  const { socket } = response;
  return socket !== null && !socket.destroyed && socket.writableLength === 0;
}

/** `sent` was given to the response already. */
async function sendWatched(
  content: ByteSource,
  range: ByteRange,
  response: ServerResponse,
  options: SendOptions,
  sent?: Uint8Array,
): Promise<TransferOutcome> {
  const { promise: over, resolve } = Promise.withResolvers<void>();
  const watch = createTransferWatch({
    client: responseClient(response),
    signal: options.signal,
    stallTimeoutMs: options.stallTimeoutMs ?? Number.POSITIVE_INFINITY,
    clientStallTimeoutMs: options.clientStallTimeoutMs ?? DEFAULT_CLIENT_STALL_TIMEOUT_MS,
    onEnd(reason) {
      if (reason !== "complete") cutResponse(response);
      resolve();
    },
  });
  response.once("finish", () => watch.end("complete"));
  let body = sent;
  if (body === undefined) {
    watch.waitFor("source");
    body = await readRange(content, range).catch(() => undefined);
    if (body === undefined) watch.end("source-failed");
    else if (watch.ended === undefined) response.end(body);
  }
  watch.waitFor("client");
  await over;
  const ended = watch.ended ?? "source-failed";
  return { bytes: ended === "complete" && body !== undefined ? body.length : 0, ended };
}
