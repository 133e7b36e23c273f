// SPDX-License-Identifier: Apache-2.0
import { TransferError, type TransferErrorCode } from "./errors.ts";
import type { PeerBody, ReadAllOptions } from "./peer-body.ts";

const DEFAULT_STALL_TIMEOUT_MS = 5_000;

/** Reads the rest of a small body; see `PeerResponse.readAll`. Memory: at most `limitBytes` and one read. */
export function readBody(body: PeerBody, options: ReadAllOptions): Promise<Buffer> {
  const { limitBytes, signal } = options;
  const stallTimeoutMs = options.stallTimeoutMs ?? DEFAULT_STALL_TIMEOUT_MS;
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  const expected = body.early.length + body.unread;

  const onAbort = (): void => fail(signal.reason as Error);
  const stallTimer = setTimeout(
    () => fail(error("TRANSFER_SOURCE_STALLED", `the peer was silent for ${stallTimeoutMs} ms`)),
    stallTimeoutMs,
  );
  signal.addEventListener("abort", onAbort, { once: true });

  if (signal.aborted) onAbort();
  else if (!body.sound) fail(surplus());
  else if (Number.isFinite(expected) && expected > limitBytes) fail(tooLarge());
  else if (add(body.early) && body.unread > 0) {
    body.connection.read({ buffer: () => undefined, onBytes, onEnd });
  }
  return promise.finally(() => {
    clearTimeout(stallTimer);
    signal.removeEventListener("abort", onAbort);
  });

  function onBytes(chunk: Buffer): boolean {
    stallTimer.refresh();
    if (chunk.length > body.unread) {
      fail(surplus());
      return false;
    }
    body.unread -= chunk.length;
    return add(Buffer.from(chunk)) && body.unread > 0;
  }

  function onEnd(cause: Error | undefined): void {
    if (cause === undefined && body.unread === Number.POSITIVE_INFINITY) succeed();
    else
      fail(
        error("TRANSFER_BODY_INCOMPLETE", `the body ended after ${sizeBytes} of ${expected} bytes`, cause),
      );
  }

  function add(chunk: Buffer): boolean {
    sizeBytes += chunk.length;
    if (sizeBytes > limitBytes) {
      fail(tooLarge());
      return false;
    }
    if (chunk.length > 0) chunks.push(chunk);
    if (body.unread === 0) succeed();
    return true;
  }

  function succeed(): void {
    resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks, sizeBytes));
  }

  function fail(reason: Error): void {
    body.sound = false;
    reject(reason); // before closing, which reports an end of its own
    body.connection.close();
  }

  function surplus(): TransferError {
    return error("TRANSFER_BODY_SURPLUS", `the peer sent more than the ${expected} bytes that it promised`);
  }

  function tooLarge(): TransferError {
    return error("TRANSFER_BODY_TOO_LARGE", `the body is larger than ${limitBytes} bytes`);
  }
}

function error(code: TransferErrorCode, message: string, cause?: Error): TransferError {
  return new TransferError({ code, message, cause });
}
