// SPDX-License-Identifier: Apache-2.0
import { type BufferLease, transferBuffers } from "./buffer-pool.ts";
import type { ByteRange } from "./byte-source.ts";
import { type Client, writeBlock } from "./client.ts";
import { readBlock } from "./read-file.ts";
import type { TransferWatch } from "./transfer-watch.ts";

/** One body on its way: `bytes` of `range` were handed to the kernel. */
export interface Sending {
  readonly range: ByteRange;
  readonly client: Client;
  readonly watch: TransferWatch;
  bytes: number;
}

/** Where in the content the next byte to send lies. */
export function offset(sending: Sending): number {
  return sending.range.start + sending.bytes;
}

export function bytesLeft(sending: Sending): number {
  return sending.range.end + 1 - offset(sending);
}

/**
 * Sends up to `limitBytes` of a file through two halves of one pooled buffer: one is read on the thread pool while
 * the socket takes the other. Returns early when the watch ended; never with a read or write under way.
 */
export async function sendRing(sending: Sending, fd: number, limitBytes: number): Promise<void> {
  const { client, watch } = sending;
  let unread = Math.min(limitBytes, bytesLeft(sending));
  if (unread <= 0 || watch.ended !== undefined) return;
  const lease = await leaseWhileRunning(watch);
  const half = lease.buffer.length / 2;
  let filling = lease.buffer.subarray(0, half);
  let sent = lease.buffer.subarray(half);
  let readFrom = offset(sending);
  let writing = Promise.resolve(true);
  try {
    while (unread > 0 && watch.ended === undefined) {
      watch.waitFor("source");
      const count = await readBlock(fd, filling, Math.min(half, unread), readFrom);
      unread -= count;
      readFrom += count;
      watch.waitFor("client");
      if (!(await writing)) break;
      const block = filling.subarray(0, count);
      writing = writeBlock(client, block).then((taken) => {
        if (taken) sending.bytes += count;
        return taken;
      });
      [filling, sent] = [sent, filling];
    }
  } finally {
    if (!(await writing)) watch.end("client-gone");
    lease.release();
  }
}

async function leaseWhileRunning(watch: TransferWatch): Promise<BufferLease> {
  const stop = new AbortController();
  watch.whenEnded(() => stop.abort());
  watch.waitFor("nobody");
  return transferBuffers.lease({ signal: stop.signal });
}
