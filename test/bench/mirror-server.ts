// SPDX-License-Identifier: Apache-2.0
/**
 * The data path alone, as a server: files of a folder, or what a peer has.
 *
 *   node mirror-server.ts serve FOLDER [sendfile|ring]
 *   node mirror-server.ts relay PEER_PORT
 *
 * Prints `{"port":n}` when it listens. Files of up to 64 KiB are kept in memory, as the mirror does with manifests.
 */
import { closeSync, fstatSync, openSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import {
  type ByteSource,
  createPeerPool,
  cutResponse,
  endResponse,
  readFully,
  requestPeer,
  sendContent,
} from "#transfer";

const [mode, place = "", method = "sendfile"] = process.argv.slice(2);
const signal = new AbortController().signal;
const pool = createPeerPool({ perPeer: 64 });
const small = new Map<string, ByteSource>();
const SMALL_BYTES = 64 * 1024;

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url ?? "/";
  const kept = small.get(path);
  if (kept !== undefined) return send(kept, response);
  const fd = openSync(join(place, path), "r");
  try {
    const content: ByteSource = { kind: "file", fd, sizeBytes: fstatSync(fd).size };
    if (content.sizeBytes <= SMALL_BYTES) {
      const bytes = await readFully(content, SMALL_BYTES);
      small.set(path, { kind: "memory", bytes, sizeBytes: bytes.length });
    }
    await send(content, response);
  } finally {
    closeSync(fd);
  }
}

async function send(content: ByteSource, response: ServerResponse): Promise<void> {
  response.writeHead(200, {
    "content-type": "application/octet-stream",
    "content-length": content.sizeBytes,
  });
  const range = { start: 0, end: content.sizeBytes - 1 };
  await sendContent(content, range, response, { signal, method: method === "ring" ? "ring" : "sendfile" });
}

async function relay(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url ?? "/";
  const peer = { host: "127.0.0.1", port: Number(place), method: "GET", path, headers: {} } as const;
  await using answer = await requestPeer(peer, { signal, pool });
  const lengthBytes = answer.contentLength ?? 0;
  response.writeHead(answer.status, {
    "content-type": "application/octet-stream",
    "content-length": lengthBytes,
  });
  const outcome = await answer.relayTo(response, { lengthBytes, signal, stallTimeoutMs: 10_000 });
  if (outcome.ended === "complete") endResponse(response);
  else cutResponse(response);
}

const server = createServer((request, response) => {
  (mode === "relay" ? relay : serve)(request, response).catch(() => cutResponse(response));
});
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`${JSON.stringify({ port: (server.address() as AddressInfo).port })}\n`);
});
