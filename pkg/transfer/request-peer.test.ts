// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import type { Socket } from "node:net";
import { describe, test } from "node:test";
import fc from "fast-check";
import { createPeerPool } from "./peer-pool.ts";
import type { PeerResponse } from "./peer-response.ts";
import { type PeerRequest, type PeerRequestOptions, requestPeer } from "./request-peer.ts";
import { noAbort, patternBytes, startPeer, type TestServer, until } from "./testing.ts";

function ask(
  peer: Pick<TestServer, "port">,
  request: Partial<PeerRequest> = {},
  options: Partial<PeerRequestOptions> = {},
): Promise<PeerResponse> {
  return requestPeer(
    { host: "127.0.0.1", port: peer.port, method: "GET", path: "/v2/x", headers: {}, ...request },
    { signal: noAbort, ...options },
  );
}

const readAll = (response: PeerResponse, limitBytes = 1000) =>
  response.readAll({ limitBytes, signal: noAbort });

/** A peer that always answers the same bytes. */
const saying = (text: string) => startPeer((socket) => socket.write(text, "latin1"));

describe("requestPeer", () => {
  test("sends one request line, the host and the given fields, and reads status, fields and body", async () => {
    let seen = "";
    await using peer = await startPeer((socket, request) => {
      seen = request;
      socket.write("HTTP/1.1 206 Partial\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/9\r\n\r\nhello");
    });
    let connected = 0;
    const request = {
      path: "/v2/a/blobs/b?ns=docker.io",
      headers: { "X-Spegel-Mirrored": "true", range: "bytes=0-4" },
    };
    await using response = await ask(peer, request, { onConnected: () => connected++ });
    assert.equal(response.status, 206);
    assert.equal(response.contentLength, 5);
    assert.equal(response.headers.get("content-range"), "bytes 0-4/9");
    assert.equal((await readAll(response)).toString(), "hello");
    assert.equal(connected, 1);
    assert.deepEqual(seen.split("\r\n"), [
      "GET /v2/a/blobs/b?ns=docker.io HTTP/1.1",
      `Host: 127.0.0.1:${peer.port}`,
      "X-Spegel-Mirrored: true",
      "range: bytes=0-4",
      "Connection: close",
    ]);
  });

  test("an IPv6 address needs no brackets, and its Host field has them", async () => {
    let seen = "";
    await using peer = await startPeer((socket, request) => {
      seen = request;
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }, "::1");
    await using response = await ask(peer, { host: "::1" });
    assert.equal(response.status, 200);
    assert.match(seen, new RegExp(`^Host: \\[::1\\]:${peer.port}$`, "m"));
  });

  test("head and body may come in any pieces", async () => {
    const body = patternBytes(700);
    const wire = Buffer.concat([
      Buffer.from(
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 700\r\nx-last: 1\r\n\r\n",
      ),
      body,
    ]);
    let cuts: readonly number[] = [];
    await using peer = await startPeer(async (socket) => {
      let from = 0;
      for (const to of [...cuts.toSorted((a, b) => a - b), wire.length]) {
        socket.write(wire.subarray(from, to));
        from = to;
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    const pool = createPeerPool();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: wire.length }), { maxLength: 30 }),
        async (points) => {
          cuts = points;
          await using response = await ask(peer, {}, { pool });
          assert.equal(response.status, 200);
          assert.equal(response.headers.get("x-last"), "1");
          assert.ok((await readAll(response)).equals(body));
        },
      ),
      { numRuns: 60, examples: [[Array.from({ length: 140 }, (_, index) => index)]] },
    );
    await pool[Symbol.asyncDispose]();
    assert.equal(peer.accepted, 1);
  });

  test("a request that could be read as two is never sent", async () => {
    await using peer = await saying("HTTP/1.1 200 OK\r\n\r\n");
    for (const bad of [
      { path: "/a b" },
      { path: "/a\r\nX: y" },
      { path: "v2" },
      { path: "" },
      { path: "/\u00e4" },
      { path: `/${"x".repeat(17_000)}` },
      { host: "a b" },
      { host: "[::1]" },
      { host: "" },
      { headers: { "X-A": "b\r\nX-C: d" } },
      { headers: { "X A": "b" } },
      { headers: { "": "b" } },
    ]) {
      await assert.rejects(
        ask(peer, bad),
        { code: "TRANSFER_REQUEST_INVALID" },
        JSON.stringify(bad).slice(0, 60),
      );
    }
    assert.equal(peer.accepted, 0);
  });

  test("nobody listening is a failed connection", async () => {
    const peer = await saying("");
    const { port } = peer;
    await peer[Symbol.asyncDispose]();
    await assert.rejects(ask({ port }), { code: "TRANSFER_CONNECT_FAILED" });
  });

  test("a peer that never accepts is given up after the connect timeout", async () => {
    using deaf = listenWithoutAccepting();
    await assert.rejects(ask(deaf, {}, { connectTimeoutMs: 30 }), { code: "TRANSFER_CONNECT_TIMEOUT" });
    const stop = new AbortController();
    const asking = ask(deaf, {}, { connectTimeoutMs: 60_000, signal: stop.signal });
    stop.abort(new Error("enough"));
    await assert.rejects(asking, /enough/);
  });

  test("an abort ends the wait for the head and closes the connection", async () => {
    await using peer = await startPeer(() => {});
    const stop = new AbortController();
    const asking = ask(peer, {}, { signal: stop.signal });
    await until(() => peer.open === 1);
    stop.abort(new Error("enough"));
    await assert.rejects(asking, /enough/);
    await until(() => peer.open === 0);
    await assert.rejects(ask(peer, {}, { signal: stop.signal }), /enough/);
  });

  test("a hostile head is refused with a code and the connection closed", async () => {
    const flood = "x: y\r\n".repeat(20_000);
    for (const [wire, code] of [
      [`HTTP/1.1 200 OK\r\n${flood}\r\n`, "TRANSFER_HEAD_TOO_LARGE"],
      ["z".repeat(300_000), "TRANSFER_HEAD_TOO_LARGE"],
      ["220 smtp ready\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 101 Switching Protocols\r\n\r\n", "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 100 Continue\r\n\r\n".repeat(50), "TRANSFER_HEAD_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n", "TRANSFER_LENGTH_INVALID"],
      ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "TRANSFER_CODING_UNSUPPORTED"],
      [
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n",
        "TRANSFER_CODING_UNSUPPORTED",
      ],
    ] as const) {
      await using peer = await saying(wire);
      await assert.rejects(ask(peer), { name: "TransferError", code }, wire.slice(0, 50));
      await until(() => peer.open === 0);
    }
  });

  test("a peer that drips an endless head is refused at the limit", async () => {
    await using peer = await startPeer(async (socket) => {
      socket.write("HTTP/1.1 200 OK\r\n");
      while (!socket.destroyed) {
        socket.write("x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n");
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    await assert.rejects(ask(peer), { code: "TRANSFER_HEAD_TOO_LARGE" });
  });

  test("a connection that closes early, before or within the head, is an incomplete head", async () => {
    for (const wire of ["", "HTTP/1.1 200 OK\r\nContent-"]) {
      await using peer = await startPeer((socket) => socket.end(wire));
      await assert.rejects(ask(peer), { code: "TRANSFER_HEAD_INCOMPLETE" });
      await using resetting = await startPeer((socket) => socket.write(wire, () => socket.resetAndDestroy()));
      await assert.rejects(ask(resetting), { code: "TRANSFER_HEAD_INCOMPLETE" });
    }
  });
});

describe("readAll", () => {
  test("a body without a length lasts until the peer closes", async () => {
    await using peer = await startPeer((socket) => socket.end("HTTP/1.0 200 OK\r\n\r\nuntil the end"));
    await using response = await ask(peer);
    assert.equal(response.contentLength, undefined);
    assert.equal((await readAll(response)).toString(), "until the end");
  });

  test("HEAD, 204 and 304 have no body, whatever length they name", async () => {
    for (const [method, status] of [
      ["HEAD", 200],
      ["GET", 204],
      ["GET", 304],
    ] as const) {
      await using peer = await saying(`HTTP/1.1 ${status} X\r\nContent-Length: 1234\r\n\r\n`);
      await using response = await ask(peer, { method });
      assert.equal(response.contentLength, 1234);
      assert.equal((await readAll(response)).length, 0);
    }
  });

  test("more than the limit is refused: by its length without reading, else on the way", async () => {
    for (const [head, body] of [
      ["Content-Length: 1001\r\n", ""],
      ["", "y".repeat(5000)],
    ] as const) {
      await using peer = await saying(`HTTP/1.1 200 OK\r\n${head}\r\n${body}`);
      await using response = await ask(peer);
      await assert.rejects(readAll(response, 1000), { code: "TRANSFER_BODY_TOO_LARGE" });
      await until(() => peer.open === 0);
    }
  });

  test("an endless body without a length is bounded", async () => {
    await using peer = await startPeer((socket) => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      const pour = (): void => {
        while (!socket.destroyed && socket.write(Buffer.alloc(65_536)));
      };
      socket.on("drain", pour);
      pour();
    });
    await using response = await ask(peer);
    await assert.rejects(readAll(response, 1_000_000), { code: "TRANSFER_BODY_TOO_LARGE" });
  });

  test("fewer bytes than promised, more than promised, and silence each have their code", async () => {
    await using cut = await startPeer((socket) =>
      socket.end("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
    );
    await assert.rejects(readAll(await ask(cut)), {
      code: "TRANSFER_BODY_INCOMPLETE",
      message: /after 3 of 9/,
    });
    await using more = await saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef");
    await assert.rejects(readAll(await ask(more)), { code: "TRANSFER_BODY_SURPLUS" });
    await using silent = await saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab");
    const stalled = (await ask(silent)).readAll({ limitBytes: 10, signal: noAbort, stallTimeoutMs: 20 });
    await assert.rejects(stalled, { code: "TRANSFER_SOURCE_STALLED" });
    await until(() => silent.open === 0 && more.open === 0 && cut.open === 0);
  });

  test("surplus that comes later closes the idle connection instead of answering the next request", async () => {
    const sockets: Socket[] = [];
    await using peer = await startPeer((socket) => {
      sockets.push(socket);
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
    });
    await using pool = createPeerPool();
    {
      await using response = await ask(peer, {}, { pool });
      assert.equal((await readAll(response)).toString(), "abc");
    }
    assert.equal(pool.idleCount, 1);
    sockets[0]?.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    await until(() => pool.idleCount === 0);
    await using response = await ask(peer, {}, { pool });
    assert.equal((await readAll(response)).toString(), "abc");
    assert.equal(peer.accepted, 2);
  });

  test("an abort ends it, and a body is taken once", async () => {
    await using peer = await saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab");
    await using response = await ask(peer);
    const stop = new AbortController();
    const reading = response.readAll({ limitBytes: 10, signal: stop.signal });
    stop.abort(new Error("enough"));
    await assert.rejects(reading, /enough/);
    await assert.rejects(readAll(response), { code: "TRANSFER_BODY_TAKEN" });
  });
});

describe("createPeerPool", () => {
  const hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

  test("a connection whose body was read carries the next request, also when the body was not asked for", async () => {
    await using peer = await saying(hello);
    await using pool = createPeerPool();
    for (let round = 0; round < 50; round++) {
      await using response = await ask(peer, {}, { pool });
      if (round % 2 === 0) assert.equal((await readAll(response)).toString(), "hello");
    }
    assert.equal(peer.accepted, 1);
    assert.equal(pool.idleCount, 1);
  });

  test("an idle connection that the peer closed is replaced without an error", async () => {
    const sockets: Socket[] = [];
    await using peer = await startPeer((socket) => {
      if (sockets.includes(socket)) socket.resetAndDestroy();
      else socket.write(hello);
      sockets.push(socket);
    });
    await using pool = createPeerPool();
    for (let round = 0; round < 5; round++) {
      await using response = await ask(peer, {}, { pool });
      assert.equal((await readAll(response)).toString(), "hello");
    }
    assert.equal(peer.accepted, 5);
    sockets.at(-1)?.end();
    await until(() => pool.idleCount === 0);
  });

  test("what cannot be used again is not kept", async () => {
    await using pool = createPeerPool();
    for (const wire of [
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
      "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=1\r\n\r\nhello",
      "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
      "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello",
      "HTTP/1.1 200 OK\r\n\r\nhello",
    ]) {
      await using peer = await saying(wire);
      {
        await using _ = await ask(peer, {}, { pool });
      }
      await until(() => peer.open === 0);
      assert.equal(pool.idleCount, 0, wire);
    }
  });

  test("idle connections are bounded per peer and in all, and end with time and with the pool", async () => {
    await using one = await saying(hello);
    await using two = await saying(hello);
    const pool = createPeerPool({ perPeer: 2, total: 3, idleTimeoutMs: 1_000_000 });
    const use = async (peers: readonly TestServer[], through = pool): Promise<void> => {
      const responses = await Promise.all(peers.map((peer) => ask(peer, {}, { pool: through })));
      for (const response of responses) {
        await readAll(response);
        await response[Symbol.asyncDispose]();
      }
    };
    await use([one, one, one]);
    assert.equal(pool.idleCount, 2);
    await use([two, two]);
    assert.equal(pool.idleCount, 3);
    await until(() => one.open === 1 && two.open === 2);
    await pool[Symbol.asyncDispose]();
    await until(() => one.open + two.open === 0);
    await use([one]);
    assert.equal(pool.idleCount, 0, "a disposed pool keeps nothing");

    await using brief = createPeerPool({ idleTimeoutMs: 10 });
    await use([one, two], brief);
    assert.equal(brief.idleCount, 2);
    await until(() => brief.idleCount === 0 && one.open + two.open === 0);
  });

  test("descriptors stay as they were over thousands of requests", async () => {
    await using peer = await saying(hello);
    await using pool = createPeerPool();
    const before = readdirSync("/proc/self/fd").length;
    for (let round = 0; round < 500; round++) {
      const burst = Array.from({ length: 6 }, async (_, index) => {
        await using response = await ask(peer, {}, index % 3 === 0 ? {} : { pool });
        assert.equal((await readAll(response)).toString(), "hello");
      });
      await Promise.all(burst);
    }
    await until(() => peer.open === pool.idleCount);
    assert.ok(readdirSync("/proc/self/fd").length <= before + 2 * pool.idleCount + 1);
  });
});

/** A listening socket with a full queue: further connections get no answer, as from a blackholed host. */
function listenWithoutAccepting(): { readonly port: number } & Disposable {
  const ffi = process.getBuiltinModule("node:ffi");
  assert.ok(ffi, "this test needs node:ffi");
  const { functions: c } = ffi.dlopen(null, {
    socket: { arguments: ["int32", "int32", "int32"], return: "int32" },
    bind: { arguments: ["int32", "pointer", "uint32"], return: "int32" },
    listen: { arguments: ["int32", "int32"], return: "int32" },
    connect: { arguments: ["int32", "pointer", "uint32"], return: "int32" },
    getsockname: { arguments: ["int32", "pointer", "pointer"], return: "int32" },
    close: { arguments: ["int32"], return: "int32" },
  });
  const [AF_INET, SOCK_STREAM, SOCK_NONBLOCK] = [2, 1, 0o4000];
  const address = Buffer.from([AF_INET, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
  const sizeCell = Buffer.from([16, 0, 0, 0]);
  const listener = c.socket(AF_INET, SOCK_STREAM, 0);
  assert.equal(c.bind(listener, ffi.getRawPointer(address), 16), 0);
  assert.equal(c.listen(listener, 0), 0);
  assert.equal(c.getsockname(listener, ffi.getRawPointer(address), ffi.getRawPointer(sizeCell)), 0);
  const fillers = [1, 2, 3].map(() => c.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  for (const filler of fillers) c.connect(filler, ffi.getRawPointer(address), 16);
  return {
    port: address.readUInt16BE(2),
    [Symbol.dispose]() {
      for (const fd of [...fillers, listener]) c.close(fd);
    },
  };
}
