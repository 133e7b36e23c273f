// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { hasCode } from "#errors";
import { transferBuffers } from "./buffer-pool.ts";
import { createPeerPool } from "./peer-pool.ts";
import type { PeerResponse } from "./peer-response.ts";
import { requestPeer } from "./request-peer.ts";
import { noAbort, patternBytes, sha256, startPeer, type TestServer, until } from "./testing.ts";

const head = (lengthBytes: number): string => `HTTP/1.1 200 OK\r\nContent-Length: ${lengthBytes}\r\n\r\n`;
const OPTIONS = { algorithm: "sha256", signal: noAbort, stallTimeoutMs: 5_000 } as const;

function ask(peer: TestServer, pool = createPeerPool()): Promise<PeerResponse> {
  const request = { host: "127.0.0.1", port: peer.port, method: "GET", path: "/", headers: {} } as const;
  return requestPeer(request, { signal: noAbort, pool });
}

describe("hashAll", () => {
  test("gives the hash of bodies of any size, and leaves the connection for the next request", async () => {
    await using pool = createPeerPool();
    const sizes = [0, 1, 70_000, 5_000_000];
    let next = 0;
    await using peer = await startPeer((socket) => {
      const bytes = patternBytes(sizes[next++] ?? 0, next);
      socket.write(Buffer.concat([Buffer.from(head(bytes.length)), bytes]));
    });
    for (const [index, size] of sizes.entries()) {
      await using response = await ask(peer, pool);
      assert.equal(await response.hashAll(OPTIONS), sha256(patternBytes(size, index + 1)));
    }
    assert.equal(peer.accepted, 1);
    assert.equal(transferBuffers.leasedBytes, 0);
  });

  test("fails when the body ends early, is longer than promised, falls silent or is not wanted any more", async () => {
    const bytes = patternBytes(300_000);
    const stop = new AbortController();
    const cases = [
      { code: "TRANSFER_BODY_INCOMPLETE", promised: bytes.length + 1, ends: true },
      { code: "TRANSFER_BODY_SURPLUS", promised: bytes.length - 1 },
      { code: "TRANSFER_SOURCE_STALLED", promised: bytes.length + 1, stallTimeoutMs: 40 },
      { code: "ABORT_ERR", promised: bytes.length + 1, signal: stop.signal },
    ];
    for (const { code, promised, ends, ...options } of cases) {
      await using peer = await startPeer((socket) => {
        socket.write(Buffer.concat([Buffer.from(head(promised)), bytes]));
        if (ends) socket.end();
      });
      {
        await using response = await ask(peer);
        const hashing = response.hashAll({ ...OPTIONS, ...options });
        stop.abort();
        await assert.rejects(
          hashing,
          (error: Error) => hasCode(error, code) || error.name === "AbortError",
          code,
        );
      }
      await until(() => peer.open === 0);
      assert.equal(transferBuffers.leasedBytes, 0);
    }
  });
});
