// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { transferBuffers } from "./buffer-pool.ts";
import { claimClient, cutResponse, endResponse } from "./client.ts";
import { EAGAIN, EIO, EPIPE, type KernelCalls, kernelCalls } from "./kernel-calls.ts";
import type { TransferEnd } from "./outcome.ts";
import { bytesLeft, type Sending } from "./send-ring.ts";
import { sendBySendfile } from "./send-sendfile.ts";
import { connectClient, noAbort, openFile, patternBytes, startServer } from "./testing.ts";
import { createTransferWatch } from "./transfer-watch.ts";

const EINVAL = 22;
const EOPNOTSUPP = 95;
const MIB = 1024 * 1024;
const bytes = patternBytes(6 * MIB + 3);

const real = kernelCalls();
assert.ok(real, "this file needs node:ffi");

/** Sends all bytes with `kernel` standing in for the system calls; the body is what the client got. */
async function send(kernel: KernelCalls): Promise<{
  sending: Sending;
  body: Buffer | undefined;
  failure: unknown;
  endedBefore: TransferEnd | undefined;
}> {
  using file = openFile(bytes);
  let sending: Sending | undefined;
  let failure: unknown;
  let endedBefore: TransferEnd | undefined;
  const done = Promise.withResolvers<void>();
  await using server = await startServer(async (_request, response) => {
    response.writeHead(200, { "content-length": bytes.length });
    const client = await claimClient(response, noAbort);
    assert.ok(client);
    const watch = createTransferWatch({
      client,
      signal: noAbort,
      stallTimeoutMs: 60_000,
      clientStallTimeoutMs: 60_000,
      onEnd: () => {},
    });
    sending = { range: { start: 0, end: bytes.length - 1 }, client, watch, bytes: 0 };
    await sendBySendfile(sending, file.fd, kernel).catch((error: unknown) => {
      failure = error;
    });
    endedBefore = sending.watch.ended;
    if (bytesLeft(sending) === 0) endResponse(response);
    else cutResponse(response);
    done.resolve();
  });
  using client = await connectClient(server.port);
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const body = await client.response().then(
    (response) => response.body,
    () => undefined,
  );
  await done.promise;
  assert.ok(sending);
  sending.watch.end("complete");
  assert.equal(transferBuffers.leasedBytes, 0);
  return { sending, body, failure, endedBefore };
}

describe("sendBySendfile", () => {
  test("parts that are not in the page cache are read on the thread pool, never by sendfile", async () => {
    const cold = (position: number): boolean => Math.floor(position / MIB) % 2 === 1;
    let bySendfile = 0;
    const { body } = await send({
      ...real,
      readCached: (fd, buffer, length, offset) =>
        cold(offset) || cold(offset + length - 1) ? -EAGAIN : real.readCached(fd, buffer, length, offset),
      sendfile(socketFd, fileFd, offset, length) {
        assert.ok(!cold(offset + length - 1), "the call would have waited for the disk");
        const count = real.sendfile(socketFd, fileFd, offset, length);
        bySendfile += Math.max(0, count);
        return count;
      },
    });
    assert.ok(body?.equals(bytes));
    assert.ok(bySendfile > 0 && bySendfile < bytes.length);
  });

  test("a file system that cannot tell what is cached is sent all the same", async () => {
    const { body } = await send({ ...real, readCached: () => -EOPNOTSUPP });
    assert.ok(body?.equals(bytes));
  });

  test("a full socket is waited for, at any place in the file", async () => {
    let calls = 0;
    const { body } = await send({
      ...real,
      sendfile: (socketFd, fileFd, offset, length) =>
        calls++ % 2 === 0 ? -EAGAIN : real.sendfile(socketFd, fileFd, offset, Math.min(length, 100_003)),
    });
    assert.ok(body?.equals(bytes));
    assert.ok(calls > 50);
  });

  test("a refusal leaves the rest to the caller, at the byte where it stood", async () => {
    let calls = 0;
    const { sending, failure, endedBefore } = await send({
      ...real,
      sendfile: (...args) => (calls++ < 2 ? real.sendfile(...args) : -EINVAL),
    });
    assert.equal(failure, undefined);
    assert.equal(endedBefore, undefined);
    assert.ok(sending.bytes > 0 && sending.bytes < bytes.length);
  });

  test("a broken socket is the client's end, a broken disk the source's", async () => {
    const gone = await send({ ...real, sendfile: () => -EPIPE });
    assert.equal(gone.endedBefore, "client-gone");
    const broken = await send({ ...real, sendfile: () => -EIO });
    assert.match(String(broken.failure), /cannot read the file at byte 0/);
  });
});

describe("kernelCalls", () => {
  test("reads cached bytes at an offset, tells the end of the file and the error number", () => {
    using file = openFile(bytes);
    const buffer = Buffer.alloc(100);
    const count = real.readCached(file.fd, buffer, 100, 1000);
    assert.ok(
      count === -EOPNOTSUPP || (count === 100 && buffer.equals(bytes.subarray(1000, 1100))),
      String(count),
    );
    assert.equal(real.readCached(-1, buffer, 10, 0), -9);
    assert.equal(real.sendfile(-1, file.fd, 0, 10), -9);
  });
});
