// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { type IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { describe, test } from "node:test";
import fc from "fast-check";
import { transferBuffers } from "./buffer-pool.ts";
import { cutResponse, endResponse } from "./client.ts";
import type { TransferOutcome } from "./outcome.ts";
import type { RelayOptions } from "./peer-body.ts";
import { createPeerPool, type PeerPool } from "./peer-pool.ts";
import { requestPeer } from "./request-peer.ts";
import { sendContent } from "./send-content.ts";
import {
  connectClient,
  getBytes,
  noAbort,
  patternBytes,
  sha256,
  startPeer,
  startServer,
  type TestServer,
  until,
} from "./testing.ts";

const MIB = 1024 * 1024;
const STALL_MS = 40;

interface RelayRun extends Partial<RelayOptions> {
  readonly pool?: PeerPool;
}

/** Asks `peer` for the same path and hands its body on. */
async function relayFrom(
  peer: Pick<TestServer, "port">,
  response: ServerResponse,
  lengthBytes: number,
  { pool, ...options }: RelayRun = {},
): Promise<TransferOutcome> {
  const request = {
    host: "127.0.0.1",
    port: peer.port,
    method: "GET",
    path: response.req.url ?? "/",
    headers: {},
  } as const;
  await using answer = await requestPeer(request, { signal: noAbort, ...(pool && { pool }) });
  return await answer.relayTo(response, { lengthBytes, signal: noAbort, stallTimeoutMs: 10_000, ...options });
}

/** A mirror that relays `lengthBytes` of what `peer` says and tells how it went. */
async function startMirror(peer: Pick<TestServer, "port">, lengthBytes: number, run: RelayRun = {}) {
  const outcomes: TransferOutcome[] = [];
  const server = await startServer(async (_request, response) => {
    response.writeHead(200, { "content-length": lengthBytes });
    const outcome = await relayFrom(peer, response, lengthBytes, run);
    outcomes.push(outcome);
    if (outcome.ended === "complete") endResponse(response);
    else cutResponse(response);
  });
  return { server, outcomes };
}

/** A peer that serves these bytes with the sender of this package. */
function startHolder(bytes: Buffer): Promise<TestServer> {
  return startServer(async (_request, response) => {
    response.writeHead(200, { "content-length": bytes.length });
    const content = { kind: "memory", bytes, sizeBytes: bytes.length } as const;
    await sendContent(content, { start: 0, end: bytes.length - 1 }, response, { signal: noAbort });
  });
}

/** A response that is written into a stream of the test, with its head given. */
function responseInto(client: Duplex, lengthBytes: number): ServerResponse {
  const request = { method: "GET", url: "/", socket: client } as unknown as IncomingMessage;
  const response = new ServerResponse(request);
  response.assignSocket(client as unknown as Socket);
  response.writeHead(200, { "content-length": lengthBytes });
  return response;
}

const head = (lengthBytes: number): string => `HTTP/1.1 200 OK\r\nContent-Length: ${lengthBytes}\r\n\r\n`;

describe("relayTo", () => {
  test("64 relays at once all arrive complete, within the bound of the buffers", async () => {
    const bytes = patternBytes(3 * MIB + 11);
    await using peer = await startHolder(bytes);
    await using pool = createPeerPool();
    const mirror = await startMirror(peer, bytes.length, { pool });
    await using _ = mirror.server;
    let most = 0;
    const watching = setInterval(() => {
      most = Math.max(most, transferBuffers.leasedBytes);
    }, 1);
    const hashes = await Promise.all(
      Array.from({ length: 64 }, async () => sha256(await getBytes(mirror.server.port))),
    );
    clearInterval(watching);
    assert.deepEqual(new Set(hashes), new Set([sha256(bytes)]));
    assert.equal(mirror.outcomes.length, 64);
    assert.ok(mirror.outcomes.every((each) => each.ended === "complete" && each.bytes === bytes.length));
    assert.ok(most > 0 && most <= 12 * MIB, String(most));
    assert.equal(transferBuffers.leasedBytes, 0);
  });

  test("200 relays, more than there are buffers, wait for each other and all arrive", async () => {
    const bytes = patternBytes(300_000);
    await using peer = await startHolder(bytes);
    const mirror = await startMirror(peer, bytes.length);
    await using _ = mirror.server;
    const bodies = await Promise.all(Array.from({ length: 200 }, () => getBytes(mirror.server.port)));
    assert.ok(bodies.every((body) => body.equals(bytes)));
    assert.equal(transferBuffers.leasedBytes, 0);
  });

  test("a body may come in any pieces and have any length", async () => {
    const all = patternBytes(400_000);
    let plan: { readonly length: number; readonly cuts: readonly number[] } = { length: 0, cuts: [] };
    await using peer = await startPeer(async (socket) => {
      const wire = Buffer.concat([Buffer.from(head(plan.length)), all.subarray(0, plan.length)]);
      let from = 0;
      for (const cut of [
        ...plan.cuts.map((part) => Math.floor(part * wire.length)).toSorted((a, b) => a - b),
        wire.length,
      ]) {
        socket.write(wire.subarray(from, cut));
        from = cut;
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    await using pool = createPeerPool();
    let hash = createHash("sha256");
    await using server = await startServer(async (_request, response) => {
      response.writeHead(200, { "content-length": plan.length });
      hash = createHash("sha256");
      const outcome = await relayFrom(peer, response, plan.length, { pool, hash });
      assert.deepEqual(outcome, { bytes: plan.length, ended: "complete" });
      endResponse(response);
    });
    using client = await connectClient(server.port);
    const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: all.length }), cuts, async (length, points) => {
        plan = { length, cuts: points };
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        const { body } = await client.response();
        assert.ok(body.equals(all.subarray(0, length)));
        assert.equal(client.pending.length, 0);
        assert.equal(hash.digest("hex"), sha256(body));
      }),
      {
        numRuns: 80,
        examples: [
          [0, []],
          [1, []],
          [65_536, []],
          [400_000, [0.0001, 0.5]],
        ],
      },
    );
    assert.equal(peer.accepted, 1, "each body was read to its end, so the connection could be kept");
    assert.equal(server.accepted, 1);
  });

  test("requests that were sent ahead are answered in order on one connection", async () => {
    await using peer = await startPeer((socket, request) => {
      const size = Number(/^GET \/(\d+) /.exec(request)?.[1]);
      socket.write(Buffer.concat([Buffer.from(head(size)), patternBytes(size, size)]));
    });
    await using server = await startServer(async (request, response) => {
      const size = Number(request.url?.slice(1));
      response.writeHead(200, { "content-length": size });
      assert.equal((await relayFrom(peer, response, size)).ended, "complete");
      endResponse(response);
    });
    using client = await connectClient(server.port);
    const sizes = [2_000_000, 5, 70_000, 900_000, 1];
    client.send(sizes.map((size) => `GET /${size} HTTP/1.1\r\nHost: x\r\n\r\n`).join(""));
    for (const size of sizes) assert.ok((await client.response()).body.equals(patternBytes(size, size)));
    assert.equal(server.accepted, 1);
  });

  test("a peer that falls silent is reported, and another one continues at that byte", async () => {
    const bytes = patternBytes(3_000_000);
    await using first = await startPeer((socket) => {
      socket.write(Buffer.concat([Buffer.from(head(bytes.length)), bytes.subarray(0, 1_234_567)]));
    });
    let rest = 0;
    await using second = await startPeer((socket) => {
      socket.write(Buffer.concat([Buffer.from(head(rest)), bytes.subarray(bytes.length - rest)]));
    });
    const outcomes: TransferOutcome[] = [];
    await using server = await startServer(async (_request, response) => {
      response.writeHead(200, { "content-length": bytes.length });
      const hash = createHash("sha256");
      outcomes.push(await relayFrom(first, response, bytes.length, { stallTimeoutMs: STALL_MS, hash }));
      rest = bytes.length - (outcomes[0]?.bytes ?? 0);
      outcomes.push(await relayFrom(second, response, rest, { hash }));
      assert.equal(hash.digest("hex"), sha256(bytes));
      endResponse(response);
    });
    using client = await connectClient(server.port);
    for (let round = 0; round < 2; round++) {
      outcomes.length = 0;
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      assert.equal(sha256((await client.response()).body), sha256(bytes));
      assert.deepEqual(outcomes, [
        { bytes: 1_234_567, ended: "source-stalled" },
        { bytes: bytes.length - 1_234_567, ended: "complete" },
      ]);
    }
    await until(() => first.open === 0);
  });

  test("a peer that never falls silent but delivers next to nothing is reported", async () => {
    await using peer = await startPeer((socket) => {
      socket.write(Buffer.concat([Buffer.from(head(MIB)), patternBytes(100_000)]));
      const trickle = setInterval(() => socket.write("x"), 2);
      socket.on("close", () => clearInterval(trickle));
    });
    const mirror = await startMirror(peer, MIB, {
      stallTimeoutMs: 10 * STALL_MS,
      leastBytesPerSecond: () => 100_000,
    });
    await using _ = mirror.server;
    using client = await connectClient(mirror.server.port);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await client.closed;
    assert.equal(mirror.outcomes[0]?.ended, "source-slow");
    assert.ok((mirror.outcomes[0]?.bytes ?? 0) > 100_000);
    await until(() => peer.open === 0);
  });

  test("a peer that pays for the time it takes is kept, however late its bytes come", async () => {
    const bytes = patternBytes(200_000);
    await using peer = await startPeer((socket) => {
      socket.write(head(bytes.length));
      let at = 0;
      const send = setInterval(() => {
        socket.write(bytes.subarray(at, at + 20_000));
        at += 20_000;
        if (at >= bytes.length) clearInterval(send);
      }, STALL_MS);
      socket.on("close", () => clearInterval(send));
    });
    const mirror = await startMirror(peer, bytes.length, {
      stallTimeoutMs: 5_000,
      leastBytesPerSecond: () => 10_000,
    });
    await using _ = mirror.server;
    assert.ok((await getBytes(mirror.server.port)).equals(bytes));
    assert.deepEqual(mirror.outcomes, [{ bytes: bytes.length, ended: "complete" }]);
  });

  test("a peer that is silent right after its head is reported too", async () => {
    await using peer = await startPeer((socket) => socket.write(head(100)));
    const mirror = await startMirror(peer, 100, { stallTimeoutMs: STALL_MS });
    await using _ = mirror.server;
    using client = await connectClient(mirror.server.port);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await client.closed;
    assert.deepEqual(mirror.outcomes, [{ bytes: 0, ended: "source-stalled" }]);
  });

  test("a peer that cuts the body, cleanly or by a reset, is reported with what came before", async () => {
    for (const cut of ["end", "reset"] as const) {
      await using peer = await startPeer((socket) => {
        socket.write(Buffer.concat([Buffer.from(head(5_000_000)), patternBytes(200_000)]));
        if (cut === "end") socket.end();
      });
      const mirror = await startMirror(peer, 5_000_000);
      await using _ = mirror.server;
      using client = await connectClient(mirror.server.port);
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      if (cut === "reset") {
        await client.received(200_000);
        await peer[Symbol.asyncDispose]();
      }
      await client.closed;
      assert.deepEqual(mirror.outcomes, [{ bytes: 200_000, ended: "source-closed" }]);
      assert.equal(client.pending.subarray(-200_000).compare(patternBytes(200_000)), 0);
    }
  });

  test("a peer that promises less than is wanted ends after what it has", async () => {
    await using peer = await startPeer((socket) => socket.write(`${head(10)}0123456789`));
    await using pool = createPeerPool();
    const mirror = await startMirror(peer, 20, { pool });
    await using _ = mirror.server;
    using client = await connectClient(mirror.server.port);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await client.closed;
    assert.deepEqual(mirror.outcomes, [{ bytes: 10, ended: "source-closed" }]);
    assert.equal(pool.idleCount, 1, "the connection itself is in order");
  });

  test("what a peer sends beyond its promise or beyond what is wanted never reaches the client", async () => {
    const long = patternBytes(700_000);
    for (const [promised, wanted] of [
      [10, 10],
      [500_000, 500_000],
      [700_000, 400_000],
      [700_000, 7],
    ] as const) {
      await using peer = await startPeer((socket) =>
        socket.write(Buffer.concat([Buffer.from(head(promised)), long])),
      );
      await using pool = createPeerPool();
      const mirror = await startMirror(peer, wanted, { pool });
      await using _ = mirror.server;
      using client = await connectClient(mirror.server.port);
      for (let round = 0; round < 2; round++) {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert.ok((await client.response()).body.equals(long.subarray(0, wanted)));
      }
      assert.equal(client.pending.length, 0);
      await until(() => pool.idleCount === 0 && peer.open === 0);
    }
  });

  test("a body without a length is relayed as far as is wanted", async () => {
    await using peer = await startPeer((socket) => socket.end("HTTP/1.0 200 OK\r\n\r\n0123456789"));
    for (const [wanted, bytes, ended] of [
      [4, 4, "complete"],
      [10, 10, "complete"],
      [11, 10, "source-closed"],
    ] as const) {
      const mirror = await startMirror(peer, wanted);
      await using _ = mirror.server;
      using client = await connectClient(mirror.server.port);
      client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
      await client.closed;
      assert.deepEqual(mirror.outcomes, [{ bytes, ended }]);
    }
  });

  test("a slow client holds the peer back, and its slowness is not taken for a stall of the peer", async () => {
    const bytes = Buffer.concat(Array.from({ length: 24 }, () => patternBytes(2 * MIB)));
    await using peer = await startHolder(bytes);
    const mirror = await startMirror(peer, bytes.length, {
      stallTimeoutMs: STALL_MS,
      leastBytesPerSecond: () => MIB,
    });
    await using _ = mirror.server;
    using client = await connectClient(mirror.server.port);
    client.socket.pause();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    // Longer than the bound on the peer: paused until several such bounds have passed.
    for (let wait = 0; wait < 5; wait++) await new Promise((resolve) => setTimeout(resolve, STALL_MS));
    assert.deepEqual(mirror.outcomes, []);
    client.socket.resume();
    assert.equal(sha256((await client.response()).body), sha256(bytes));
    await until(() => mirror.outcomes.length === 1);
    assert.deepEqual(mirror.outcomes, [{ bytes: bytes.length, ended: "complete" }]);
  });

  test("a client that takes nothing is given up after its own bound", async () => {
    await using peer = await startHolder(Buffer.alloc(64 * MIB, "stuck"));
    const mirror = await startMirror(peer, 64 * MIB, { clientStallTimeoutMs: STALL_MS });
    await using _ = mirror.server;
    using client = await connectClient(mirror.server.port);
    client.socket.pause();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await until(() => mirror.outcomes.length === 1);
    assert.equal(mirror.outcomes[0]?.ended, "client-gone");
    await until(() => transferBuffers.leasedBytes === 0 && peer.open === 0);
  });

  test("a client that leaves frees the buffer and the peer, while data flows and while the peer is silent", async () => {
    for (const body of [Buffer.alloc(64 * MIB, "leave"), Buffer.alloc(100_000, "leave")]) {
      await using peer = await startPeer((socket) =>
        socket.write(Buffer.concat([Buffer.from(head(64 * MIB)), body])),
      );
      const mirror = await startMirror(peer, 64 * MIB);
      await using _ = mirror.server;
      using client = await connectClient(mirror.server.port);
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await client.received(100_000);
      client.socket.resetAndDestroy();
      await until(() => mirror.outcomes.length === 1);
      assert.equal(mirror.outcomes[0]?.ended, "client-gone");
      await until(() => transferBuffers.leasedBytes === 0 && peer.open === 0);
    }
  });

  test("a client that closes its own direction ends the relay, while data flows and while the peer is silent", async () => {
    for (const body of [Buffer.alloc(64 * MIB, "half"), Buffer.alloc(100_000, "half")]) {
      await using peer = await startPeer((socket) =>
        socket.write(Buffer.concat([Buffer.from(head(64 * MIB)), body])),
      );
      const mirror = await startMirror(peer, 64 * MIB, { stallTimeoutMs: 2000 });
      await using _ = mirror.server;
      using client = await connectClient(mirror.server.port);
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await client.received(100_000);
      client.socket.end();
      await until(() => mirror.outcomes.length === 1);
      assert.equal(mirror.outcomes[0]?.ended, "client-gone");
      await until(() => transferBuffers.leasedBytes === 0 && peer.open === 0);
    }
  });

  test("an abort ends it while it waits for the peer, for the client and for its turn", async () => {
    await using silent = await startPeer((socket) => socket.write(`${head(100)}abc`));
    await using endless = await startHolder(Buffer.alloc(64 * MIB, "abort"));
    for (const [peer, lengthBytes] of [
      [silent, 100],
      [endless, 64 * MIB],
    ] as const) {
      const stop = new AbortController();
      const mirror = await startMirror(peer, lengthBytes, { signal: stop.signal });
      await using _ = mirror.server;
      using client = await connectClient(mirror.server.port);
      client.socket.pause();
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await new Promise((resolve) => client.socket.once("readable", resolve));
      stop.abort();
      await until(() => mirror.outcomes.length === 2);
      assert.deepEqual(
        mirror.outcomes.map((each) => each.ended),
        ["aborted", "aborted"],
      );
      await until(() => transferBuffers.leasedBytes === 0);
    }
  });

  test("a connection that is used again writes into no buffer that others have by then", async () => {
    const bytes = patternBytes(MIB);
    await using peer = await startHolder(bytes);
    await using pool = createPeerPool();
    // Every block is lent to this client for a while, the last one too.
    const late = new Duplex({ read() {}, write: (_chunk, _encoding, taken) => setImmediate(taken) });
    const response = responseInto(late, bytes.length);
    const outcome = await relayFrom(peer, response, bytes.length, { pool });
    assert.equal(outcome.ended, "complete");
    assert.equal(pool.idleCount, 1);

    const leases = await Promise.all(
      Array.from({ length: 4 }, () => transferBuffers.lease({ signal: noAbort })),
    );
    for (const { buffer } of leases) buffer.fill(0xaa);
    const request = { host: "127.0.0.1", port: peer.port, method: "GET", path: "/", headers: {} } as const;
    await using again = await requestPeer(request, { signal: noAbort, pool });
    assert.equal(pool.idleCount, 0, "it is the same connection");
    assert.ok((await again.readAll({ limitBytes: MIB, signal: noAbort })).equals(bytes));
    for (const { buffer, release } of leases) {
      assert.ok(buffer.every((byte) => byte === 0xaa));
      release();
    }
  });

  test("a small body that the client takes late, never, or no more of ends accordingly", async () => {
    const bytes = patternBytes(1000);
    await using peer = await startPeer((socket) => {
      socket.write(Buffer.concat([Buffer.from(head(bytes.length)), bytes]));
    });
    const relayInto = async (
      write: (this: Duplex, taken: () => void) => void,
      options: Partial<RelayOptions> = {},
    ): Promise<{ readonly outcome: TransferOutcome; readonly sent: Buffer }> => {
      const parts: Buffer[] = [];
      const client = new Duplex({
        read() {},
        write(chunk: Buffer, _encoding, taken) {
          parts.push(chunk);
          write.call(this, taken);
        },
      });
      client.on("error", () => {});
      const response = responseInto(client, bytes.length);
      const hash = createHash("sha256");
      const outcome = await relayFrom(peer, response, bytes.length, { hash, ...options });
      assert.equal(hash.digest("hex"), sha256(bytes));
      return { outcome, sent: Buffer.concat(parts) };
    };

    const late = await relayInto((taken) => setImmediate(taken));
    assert.deepEqual(late.outcome, { bytes: bytes.length, ended: "complete" });
    assert.ok(late.sent.subarray(-bytes.length).equals(bytes));
    const never = await relayInto(() => {}, { clientStallTimeoutMs: STALL_MS });
    assert.equal(never.outcome.ended, "client-gone");
    const gone = await relayInto(function () {
      this.destroy();
    });
    assert.equal(gone.outcome.ended, "client-gone");
    const abort = new AbortController();
    const aborted = await relayInto(() => abort.abort(), { signal: abort.signal });
    assert.equal(aborted.outcome.ended, "aborted");
  });

  test("disposing an answer in the middle of its relay ends the relay at once", async () => {
    await using peer = await startPeer((socket) => socket.write(`${head(100)}abc`));
    await using server = await startServer(async (_request, response) => {
      response.writeHead(200, { "content-length": 100 });
      const request = { host: "127.0.0.1", port: peer.port, method: "GET", path: "/", headers: {} } as const;
      const answer = await requestPeer(request, { signal: noAbort });
      const relaying = answer.relayTo(response, {
        lengthBytes: 100,
        signal: noAbort,
        stallTimeoutMs: 60_000,
      });
      await new Promise((resolve) => setImmediate(resolve));
      await answer[Symbol.asyncDispose]();
      assert.deepEqual(await relaying, { bytes: 3, ended: "source-closed" });
      cutResponse(response);
    });
    using client = await connectClient(server.port);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await client.closed;
    assert.equal(client.pending.toString("latin1", client.pending.length - 3), "abc");
  });

  test("an answer that is not wanted is closed by disposing it, whatever the peer still sends", async () => {
    await using peer = await startHolder(Buffer.alloc(64 * MIB, "unwanted"));
    await using pool = createPeerPool();
    for (let round = 0; round < 20; round++) {
      const request = { host: "127.0.0.1", port: peer.port, method: "GET", path: "/", headers: {} } as const;
      await using answer = await requestPeer(request, { signal: noAbort, pool });
      assert.equal(answer.contentLength, 64 * MIB);
    }
    await until(() => peer.open === 0);
    assert.equal(pool.idleCount, 0);
  });

  test("descriptors and buffers stay as they were over thousands of relays, finished or not", async () => {
    const bytes = patternBytes(150_000);
    await using peer = await startHolder(bytes);
    await using pool = createPeerPool();
    const mirror = await startMirror(peer, bytes.length, { pool });
    await using _ = mirror.server;
    const round = async (): Promise<void> => {
      using client = await connectClient(mirror.server.port);
      for (let request = 0; request < 4; request++) {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        if (request === 3) await client.received(1000);
        else assert.equal((await client.response()).body.length, bytes.length);
      }
    };
    const settled = (): Promise<void> =>
      until(() => mirror.server.open === 0 && peer.open === pool.idleCount);
    for (let warm = 0; warm < 20; warm++) await round();
    await settled();
    const before = readdirSync("/proc/self/fd").length - 2 * pool.idleCount;
    for (let each = 0; each < 500; each++) await round();
    await settled();
    assert.ok(readdirSync("/proc/self/fd").length - 2 * pool.idleCount <= before);
    assert.equal(transferBuffers.leasedBytes, 0);
    assert.ok(mirror.outcomes.length >= 2000);
  });
});
