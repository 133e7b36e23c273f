// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { connect } from "node:net";
import { describe, it } from "node:test";
import { parseListenAddress } from "./listen-address.ts";
import { openPlainServer } from "./plain-server.ts";

/** Sends raw bytes and gives everything that comes back until the server closes. */
function exchange(port: number, bytes: string, options: { end?: boolean } = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    socket.on("error", (error) => (text === "" ? reject(error) : resolve(text)));
    socket.on("close", () => resolve(text));
    if (options.end === false) socket.write(bytes);
    else socket.end(bytes);
  });
}

describe("openPlainServer", () => {
  it("answers 500 when a handler fails, and serves the next request", async () => {
    let calls = 0;
    await using server = await openPlainServer(
      async (_request, response) => {
        calls++;
        if (calls === 1) throw new Error("broken");
        response.writeHead(204).end();
      },
      { address: "127.0.0.1:0" },
    );
    assert.equal((await fetch(`http://${server.address}/`)).status, 500);
    assert.equal((await fetch(`http://${server.address}/`)).status, 204);
  });

  it("refuses a head of one megabyte and malformed requests without calling the handler", async () => {
    let calls = 0;
    await using server = await openPlainServer(
      async (_request, response) => {
        calls++;
        response.end();
      },
      { address: "127.0.0.1:0" },
    );
    assert.match(
      await exchange(server.port, `GET / HTTP/1.1\r\nHost: x\r\nA: ${"a".repeat(1 << 20)}\r\n\r\n`),
      /^HTTP\/1.1 431/,
    );
    assert.match(await exchange(server.port, "\u0000\u0001\r\n\r\n"), /^HTTP\/1.1 400/);
    assert.equal(calls, 0);
    assert.equal((await fetch(`http://${server.address}/`)).status, 200);
  });

  it("aborts the handler's signal when the client goes away", async () => {
    const aborted = Promise.withResolvers<void>();
    await using server = await openPlainServer(
      async (_request, _response, signal) => {
        signal.addEventListener("abort", () => aborted.resolve(), { once: true });
        client.destroy();
        await aborted.promise;
      },
      { address: "127.0.0.1:0" },
    );
    const client = connect(server.port, "127.0.0.1");
    client.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await aborted.promise;
  });

  it("lets a request under way finish before it closes", async () => {
    const entered = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const server = await openPlainServer(
      async (_request, response) => {
        entered.resolve();
        await release.promise;
        response.end("done");
      },
      { address: "127.0.0.1:0" },
    );
    const answer = fetch(`http://${server.address}/`).then((response) => response.text());
    await entered.promise;
    const closed = server[Symbol.asyncDispose]();
    release.resolve();
    assert.equal(await answer, "done");
    await closed;
  });

  it("fails with the system's error when the address is taken", async () => {
    await using server = await openPlainServer(async () => {}, { address: "127.0.0.1:0" });
    await assert.rejects(
      openPlainServer(async () => {}, { address: `127.0.0.1:${server.port}` }),
      { code: "EADDRINUSE" },
    );
  });
});

describe("parseListenAddress", () => {
  it("reads the forms of net.Listen", () => {
    assert.deepEqual(parseListenAddress(":5000"), { port: 5000 });
    assert.deepEqual(parseListenAddress("127.0.0.1:0"), { host: "127.0.0.1", port: 0 });
    assert.deepEqual(parseListenAddress("[::1]:80"), { host: "::1", port: 80 });
  });

  it("refuses what is no address", () => {
    for (const text of ["", "5000", ":70000", "::1:80", "[127.0.0.1]:80", ":port", "a:b:1"]) {
      assert.throws(() => parseListenAddress(text), RangeError, text);
    }
  });
});
