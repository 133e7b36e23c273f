// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { type BufferLease, transferBuffers } from "./buffer-pool.ts";
import { TransferError, type TransferErrorCode } from "./errors.ts";
import type { HashAllOptions, PeerBody } from "./peer-body.ts";

/** Reads the rest of a body through a hash and keeps none of it; see `PeerResponse.hashAll`. Memory: one pooled buffer. */
export async function hashBody(body: PeerBody, options: HashAllOptions): Promise<string> {
  const lease = await transferBuffers.lease({ signal: options.signal });
  try {
    return await readThrough(body, lease, options);
  } finally {
    lease.release();
  }
}

function readThrough(body: PeerBody, lease: BufferLease, options: HashAllOptions): Promise<string> {
  const { signal, stallTimeoutMs } = options;
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const hash = createHash(options.algorithm).update(body.early);
  const onAbort = (): void => fail(signal.reason as Error);
  const stallTimer = setTimeout(
    () => fail(error("TRANSFER_SOURCE_STALLED", `the peer was silent for ${stallTimeoutMs} ms`)),
    stallTimeoutMs,
  );
  signal.addEventListener("abort", onAbort, { once: true });
  let over = false;

  if (signal.aborted) onAbort();
  else if (!body.sound) fail(surplus());
  else if (body.unread === 0) succeed();
  else body.connection.read({ buffer: () => (over ? undefined : lease.buffer), onBytes, onEnd });
  return promise.finally(() => {
    clearTimeout(stallTimer);
    signal.removeEventListener("abort", onAbort);
  });

  function onBytes(chunk: Buffer): boolean {
    if (over) return false;
    stallTimer.refresh();
    if (chunk.length > body.unread) {
      fail(surplus());
      return false;
    }
    hash.update(chunk);
    body.unread -= chunk.length;
    if (body.unread === 0) succeed();
    return !over;
  }

  function onEnd(cause: Error | undefined): void {
    if (over) return;
    if (cause === undefined && body.unread === Number.POSITIVE_INFINITY) succeed();
    else fail(error("TRANSFER_BODY_INCOMPLETE", `the body ended ${body.unread} bytes early`, cause));
  }

  function succeed(): void {
    over = true;
    resolve(hash.digest("hex"));
  }

  function fail(reason: Error): void {
    over = true;
    body.sound = false;
    reject(reason);
    body.connection.close();
  }

  function surplus(): TransferError {
    return error("TRANSFER_BODY_SURPLUS", "the peer sent more than it promised");
  }
}

function error(code: TransferErrorCode, message: string, cause?: Error): TransferError {
  return new TransferError({ code, message, cause });
}
