// SPDX-License-Identifier: Apache-2.0
import { setImmediate as nextTurn } from "node:timers/promises";
import { writeBlock } from "./client.ts";
import { EAGAIN, ECONNRESET, EIO, EPIPE, type KernelCalls } from "./kernel-calls.ts";
import { readBlock, sourceFailed } from "./read-file.ts";
import { bytesLeft, offset, type Sending, sendRing } from "./send-ring.ts";

const KIB = 1024;
/** Bytes of one sendfile(2) call: bounds how long one call holds the event loop. */
const CALL_BYTES = 1024 * KIB;
/** Bytes one response may send before the others get their turn. */
const TURN_BYTES = 2 * 1024 * KIB;
/** What passes through Node to learn when the socket takes bytes again. */
const PROBE_BYTES = 4 * KIB;

/**
 * Sends a file from the page cache to the socket without a copy through this process. Parts that are not in the
 * page cache are read on the thread pool: sendfile(2) would wait for the disk, and with it every other transfer.
 *
 * Returns early when the watch ended, and when the kernel cannot do it for this file or socket: the caller then
 * sends the rest in another way.
 */
export async function sendBySendfile(sending: Sending, fd: number, kernel: KernelCalls): Promise<void> {
  sending.client.sendHead();
  // Under TCP_NODELAY each 64 KiB step of sendfile(2) would end with a short segment of its own.
  sending.client.setNoDelay(false);
  try {
    await sendInTurns(sending, fd, kernel);
  } finally {
    sending.client.setNoDelay(true);
  }
}

async function sendInTurns(sending: Sending, fd: number, kernel: KernelCalls): Promise<void> {
  const { client, watch } = sending;
  const probe = Buffer.allocUnsafeSlow(PROBE_BYTES);
  let turnBytes = 0;
  while (bytesLeft(sending) > 0 && watch.ended === undefined) {
    if (turnBytes >= TURN_BYTES) {
      turnBytes = 0;
      watch.waitFor("nobody");
      await nextTurn();
      continue;
    }
    const socketFd = client.socketFd;
    if (socketFd === undefined) return;
    const before = sending.bytes;
    const wanted = Math.min(bytesLeft(sending), CALL_BYTES);
    if (!client.drained) {
      await passBlock(sending, fd, kernel, probe); // the head is still on its way: what follows must queue behind it
    } else if (isCold(fd, offset(sending) + wanted - 1, kernel, probe)) {
      await sendRing(sending, fd, wanted);
    } else {
      const count = kernel.sendfile(socketFd, fd, offset(sending), wanted);
      if (count > 0) sending.bytes += count;
      else if (count === 0) throw sourceFailed(undefined, offset(sending));
      else if (count === -EAGAIN) await passBlock(sending, fd, kernel, probe);
      else if (count === -EPIPE || count === -ECONNRESET) watch.end("client-gone");
      else if (count === -EIO) throw sourceFailed(new Error("sendfile: input/output error"), offset(sending));
      else return;
    }
    turnBytes += sending.bytes - before;
  }
}

/** True when this byte would have to come from the disk. A file system that cannot tell counts as cached. */
function isCold(fd: number, position: number, kernel: KernelCalls, probe: Buffer): boolean {
  return kernel.readCached(fd, probe, 1, position) === -EAGAIN;
}

/**
 * Sends a little through Node. Node waits until the socket is writable and calls back: there is no other way to ask
 * it to watch the socket for us.
 */
async function passBlock(sending: Sending, fd: number, kernel: KernelCalls, probe: Buffer): Promise<void> {
  const { client, watch } = sending;
  const lengthBytes = Math.min(bytesLeft(sending), PROBE_BYTES);
  let count = kernel.readCached(fd, probe, lengthBytes, offset(sending));
  if (count <= 0) {
    watch.waitFor("source");
    count = await readBlock(fd, probe, lengthBytes, offset(sending));
  }
  watch.waitFor("client");
  if (await writeBlock(client, probe.subarray(0, count))) sending.bytes += count;
  else watch.end("client-gone");
}
