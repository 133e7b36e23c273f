// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, truncateSync } from "node:fs";
import { Agent, get, type IncomingMessage, type ServerResponse } from "node:http";
import { describe, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { transferBuffers } from "./buffer-pool.ts";
import type { ByteRange, ByteSource } from "./byte-source.ts";
import { kernelCalls } from "./kernel-calls.ts";
import type { TransferOutcome } from "./outcome.ts";
import { sendContent } from "./send-content.ts";
import type { SendOptions } from "./send-options.ts";
import {
  connectClient,
  getBytes,
  noAbort,
  openFile,
  patternBytes,
  sha256,
  startServer,
  until,
} from "./testing.ts";

/*
 * This file runs twice: as it is, and once more without node:ffi, started by its own last test
 * (`node --no-experimental-ffi pkg/transfer/send-content.test.ts`). There "sendfile" falls back to the ring.
 */
const withoutFFI = process.execArgv.includes("--no-experimental-ffi");
const SIZE = 5_000_011;
const bytes = patternBytes(SIZE);
const whole: ByteRange = { start: 0, end: SIZE - 1 };
const memory: ByteSource = { kind: "memory", bytes, sizeBytes: SIZE };

/** Answers every request with the part of `content` its Range header names. */
function answer(
  content: ByteSource,
  options: Partial<SendOptions> = {},
  onOutcome: (outcome: TransferOutcome) => void = (outcome) => assert.equal(outcome.ended, "complete"),
) {
  return async (request: Pick<IncomingMessage, "headers">, response: ServerResponse): Promise<void> => {
    const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const range =
      match === null
        ? { start: 0, end: content.sizeBytes - 1 }
        : { start: Number(match[1]), end: Number(match[2]) };
    response.writeHead(200, { "content-length": range.end - range.start + 1 });
    onOutcome(await sendContent(content, range, response, { signal: noAbort, ...options }));
  };
}

test("node:ffi is there exactly when it was not switched off", () => {
  assert.equal(kernelCalls() !== undefined, !withoutFFI);
});

for (const method of withoutFFI ? (["sendfile"] as const) : (["sendfile", "ring"] as const)) {
  describe(`sendContent of a file by ${method}`, { concurrency: false }, () => {
    test("any range arrives byte by byte, many on one connection", async () => {
      using file = openFile(bytes);
      await using server = await startServer(answer(file, { method }));
      using client = await connectClient(server.port);
      const range = fc
        .tuple(fc.nat({ max: SIZE - 1 }), fc.oneof(fc.nat({ max: 70_000 }), fc.nat({ max: SIZE })))
        .map(([start, length]) => ({ start, end: Math.min(SIZE - 1, start + length) }));
      await fc.assert(
        fc.asyncProperty(range, async ({ start, end }) => {
          client.send(`GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=${start}-${end}\r\n\r\n`);
          const { body } = await client.response();
          assert.equal(sha256(body), sha256(bytes.subarray(start, end + 1)));
          assert.equal(client.pending.length, 0);
        }),
        {
          numRuns: 60,
          examples: [
            [{ start: 0, end: 0 }],
            [{ start: SIZE - 1, end: SIZE - 1 }],
            [whole],
            [{ start: 5, end: 32_772 }],
            [{ start: 5, end: 32_773 }],
          ],
        },
      );
      assert.equal(server.accepted, 1);
      assert.equal(transferBuffers.leasedBytes, 0);
    });

    test("requests that were sent ahead are answered in order", async () => {
      using file = openFile(bytes);
      await using server = await startServer(answer(file, { method }));
      using client = await connectClient(server.port);
      const ranges = [
        [0, SIZE - 1],
        [1, 1],
        [70, 3_000_000],
        [9, 40_000],
        [0, SIZE - 1],
      ] as const;
      client.send(
        ranges
          .map(([start, end]) => `GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=${start}-${end}\r\n\r\n`)
          .join(""),
      );
      for (const [start, end] of ranges) {
        assert.equal(sha256((await client.response()).body), sha256(bytes.subarray(start, end + 1)));
      }
      assert.equal(server.accepted, 1);
    });

    test("a keep-alive agent of Node uses the connection again", async () => {
      using file = openFile(bytes);
      await using server = await startServer(answer(file, { method }));
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      for (let round = 0; round < 3; round++) {
        const hash = await new Promise<string>((resolve, reject) => {
          get({ port: server.port, host: "127.0.0.1", agent }, (message) => {
            const parts: Buffer[] = [];
            message.on("data", (part: Buffer) => parts.push(part));
            message.on("end", () => resolve(sha256(Buffer.concat(parts))));
            message.on("error", reject);
          }).on("error", reject);
        });
        assert.equal(hash, sha256(bytes));
      }
      agent.destroy();
      assert.equal(server.accepted, 1);
    });

    test("a client that reads slowly gets everything", async () => {
      using file = openFile(Buffer.concat(Array.from({ length: 8 }, () => bytes)));
      const outcomes: TransferOutcome[] = [];
      await using server = await startServer(answer(file, { method }, (outcome) => outcomes.push(outcome)));
      using client = await connectClient(server.port);
      client.socket.pause();
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      const pauses = setInterval(
        () => (client.socket.isPaused() ? client.socket.resume() : client.socket.pause()),
        1,
      );
      const { body } = await client.response();
      clearInterval(pauses);
      assert.equal(body.length, 8 * SIZE);
      for (let part = 0; part < 8; part++)
        assert.ok(body.subarray(part * SIZE, (part + 1) * SIZE).equals(bytes));
      await until(() => outcomes.length === 1);
      assert.deepEqual(outcomes, [{ bytes: 8 * SIZE, ended: "complete" }]);
    });

    test("32 streams share: nobody is finished before everybody got something", async () => {
      using file = openFile(Buffer.alloc(16 * 1024 * 1024, "fair"));
      const waiting: ServerResponse[] = [];
      const all = Promise.withResolvers<void>();
      let startedWhenFirstEnded: number | undefined;
      const clients = Array.from({ length: 32 });
      await using server = await startServer(async (_request, response) => {
        if (waiting.push(response) === clients.length) all.resolve();
        await all.promise;
        await answer(file, { method })({ headers: {} }, response);
        startedWhenFirstEnded ??= received.filter((count) => count > 0).length;
      });
      const received = clients.map(() => 0);
      await Promise.all(
        clients.map(async (_, index) => {
          using client = await connectClient(server.port);
          client.socket.removeAllListeners("data").on("data", (chunk: Buffer) => {
            received[index] = (received[index] ?? 0) + chunk.length;
          });
          client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
          await until(() => (received[index] ?? 0) > 16 * 1024 * 1024);
        }),
      );
      assert.equal(startedWhenFirstEnded, 32);
    });

    test("a file that is shorter than said cuts the response", async () => {
      for (const range of [
        whole,
        { start: SIZE - 2_000_000, end: SIZE - 1 },
        { start: SIZE - 1000, end: SIZE - 1 },
      ]) {
        using file = openFile(bytes);
        truncateSync(file.path, SIZE - 500);
        const outcome = Promise.withResolvers<TransferOutcome>();
        await using server = await startServer(answer(file, { method }, outcome.resolve));
        using client = await connectClient(server.port);
        client.send(`GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=${range.start}-${range.end}\r\n\r\n`);
        await client.closed;
        assert.equal((await outcome.promise).ended, "source-failed");
        assert.ok((await outcome.promise).bytes <= range.end + 1 - range.start - 500);
      }
      assert.equal(transferBuffers.leasedBytes, 0);
    });

    test("a client that leaves in the middle ends the transfer and gives the buffers back", async () => {
      using file = openFile(Buffer.alloc(64 * 1024 * 1024, "leave"));
      const outcome = Promise.withResolvers<TransferOutcome>();
      await using server = await startServer(answer(file, { method }, outcome.resolve));
      using client = await connectClient(server.port);
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await client.received(100_000);
      client.socket.resetAndDestroy();
      assert.equal((await outcome.promise).ended, "client-gone");
      await until(() => transferBuffers.leasedBytes === 0);
    });

    test("a client that closes its own direction ends the transfer, it does not hang", async () => {
      using file = openFile(Buffer.alloc(64 * 1024 * 1024, "half"));
      const outcome = Promise.withResolvers<TransferOutcome>();
      await using server = await startServer(answer(file, { method }, outcome.resolve));
      using client = await connectClient(server.port);
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await client.received(1000);
      client.socket.end();
      assert.equal((await outcome.promise).ended, "client-gone");
      await until(() => server.open === 0 && transferBuffers.leasedBytes === 0);
    });

    test("a client that takes nothing is given up after its own bound", async () => {
      using file = openFile(Buffer.alloc(64 * 1024 * 1024, "stuck"));
      const outcome = Promise.withResolvers<TransferOutcome>();
      const options = { method, clientStallTimeoutMs: 30, stallTimeoutMs: 10_000 };
      await using server = await startServer(answer(file, options, outcome.resolve));
      using client = await connectClient(server.port);
      client.socket.pause();
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      assert.equal((await outcome.promise).ended, "client-gone");
      await until(() => transferBuffers.leasedBytes === 0 && server.open === 0);
    });

    test("an aborted transfer is cut, also when it waits for its turn or has not begun", async () => {
      using file = openFile(Buffer.alloc(64 * 1024 * 1024, "abort"));
      const stop = new AbortController();
      const outcomes: TransferOutcome[] = [];
      await using server = await startServer(
        answer(file, { method, signal: stop.signal }, (each) => outcomes.push(each)),
      );
      using client = await connectClient(server.port);
      client.socket.pause();
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await new Promise((resolve) => client.socket.once("readable", resolve));
      stop.abort();
      await until(() => outcomes.length === 2);
      assert.deepEqual(
        outcomes.map((outcome) => outcome.ended),
        ["aborted", "aborted"],
      );
      using late = await connectClient(server.port);
      late.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await late.closed;
      assert.deepEqual(outcomes[2], { bytes: 0, ended: "aborted" });
      await until(() => transferBuffers.leasedBytes === 0);
    });

    test("descriptors and memory stay as they were over thousands of requests", async () => {
      using file = openFile(bytes);
      await using server = await startServer(answer(file, { method }));
      const rounds = async (count: number): Promise<void> => {
        for (let round = 0; round < count; round++) {
          using client = await connectClient(server.port);
          for (const [start, end] of [
            [0, 40_000],
            [7, 7],
            [100, 90_000],
            [3, 20_000],
          ] as const) {
            client.send(`GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=${start}-${end}\r\n\r\n`);
            assert.equal((await client.response()).body.length, end + 1 - start);
          }
        }
        await until(() => server.open === 0);
      };
      await rounds(100);
      const before = { descriptors: readdirSync("/proc/self/fd").length, heap: heapAfterCollection() };
      await rounds(500);
      const grown = heapAfterCollection() - before.heap;
      assert.ok(readdirSync("/proc/self/fd").length <= before.descriptors);
      assert.ok(grown < 2 * 1024 * 1024, `${grown} bytes more after 2000 requests`);
      assert.equal(transferBuffers.leasedBytes, 0);
    });
  });
}

describe("sendContent", () => {
  test("content in memory arrives byte by byte for any range", async () => {
    await using server = await startServer(answer(memory));
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: SIZE - 1 }), fc.nat({ max: SIZE - 1 }), async (one, other) => {
        const [start, end] = [Math.min(one, other), Math.max(one, other)];
        const body = await getBytes(server.port, "/", `Range: bytes=${start}-${end}\r\n`);
        assert.equal(sha256(body), sha256(bytes.subarray(start, end + 1)));
      }),
      {
        numRuns: 25,
        examples: [
          [0, 0],
          [0, SIZE - 1],
          [0, 32_767],
          [0, 32_768],
        ],
      },
    );
  });

  test("a range outside of the content is refused before anything is sent", async () => {
    const refused: unknown[] = [];
    await using server = await startServer(async (_request, response) => {
      for (const [start, end] of [
        [0, SIZE],
        [-1, 5],
        [6, 5],
        [0.5, 2],
        [0, Number.NaN],
        [SIZE, SIZE],
      ] as const) {
        await assert.rejects(sendContent(memory, { start, end }, response, { signal: noAbort }), {
          code: "TRANSFER_RANGE_INVALID",
        });
        refused.push(start);
      }
      response.end("intact");
    });
    await getBytes(server.port);
    assert.equal(refused.length, 6);
  });

  test("a small content for a client that is gone already is not waited for", async () => {
    const outcomes: TransferOutcome[] = [];
    await using server = await startServer(async (request, response) => {
      await new Promise((resolve) => request.socket.once("close", resolve));
      for (const end of [5, SIZE - 1])
        outcomes.push(await sendContent(memory, { start: 0, end }, response, { signal: noAbort }));
    });
    using client = await connectClient(server.port);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await until(() => server.open === 1);
    client.socket.resetAndDestroy();
    await until(() => outcomes.length === 2);
    assert.deepEqual(
      outcomes.map((outcome) => outcome.ended),
      ["client-gone", "client-gone"],
    );
  });

  test("without node:ffi the ring does the same work", {
    skip: withoutFFI ? "this is that run" : false,
  }, () => {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const run = spawnSync(
      process.execPath,
      ["--no-experimental-ffi", "--no-warnings", "--test-reporter=tap", import.meta.filename],
      { env, encoding: "utf8", timeout: 120_000 },
    );
    assert.equal(run.status, 0, run.stdout);
    assert.match(run.stdout, /^# tests 16$/m);
    assert.match(run.stdout, /^# fail 0$/m);
  });
});

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

function heapAfterCollection(): number {
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
