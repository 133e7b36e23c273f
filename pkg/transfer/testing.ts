// SPDX-License-Identifier: Apache-2.0
/** Servers, peers and clients for tests of the data path; all on loopback, all closed when disposed. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHTTPServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ByteSource } from "./byte-source.ts";

/** A signal that never aborts. */
export const noAbort: AbortSignal = new AbortController().signal;

/** Bytes that differ everywhere, so that a block in the wrong place is seen; the same for the same size and seed. */
export function patternBytes(sizeBytes: number, seed = 1): Buffer {
  const words = new Uint32Array(Math.ceil(sizeBytes / 4));
  let state = seed >>> 0 || 1;
  for (let index = 0; index < words.length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return Buffer.from(words.buffer).subarray(0, sizeBytes);
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export interface TestServer extends AsyncDisposable {
  readonly port: number;
  /** Connections that were ever accepted. */
  readonly accepted: number;
  /** Connections that are open now. */
  readonly open: number;
}

/** An HTTP server whose handler may fail: the first failure is thrown when it is disposed. */
export async function startServer(
  handler: (request: IncomingMessage, response: ServerResponse) => Promise<void> | void,
  host = "127.0.0.1",
): Promise<TestServer> {
  let failure: { readonly error: unknown } | undefined;
  const server = createHTTPServer(async (request, response) => {
    try {
      await handler(request, response);
    } catch (error) {
      failure ??= { error };
      response.destroy();
    }
  });
  const listening = await listen(server, host);
  return {
    get port() {
      return listening.port;
    },
    get accepted() {
      return listening.accepted;
    },
    get open() {
      return listening.open;
    },
    async [Symbol.asyncDispose]() {
      await listening[Symbol.asyncDispose]();
      if (failure !== undefined) throw failure.error;
    },
  };
}

/** A peer that answers with whatever bytes a test wants. The script gets the socket and each complete request head. */
export async function startPeer(
  script: (socket: Socket, request: string) => void,
  host = "127.0.0.1",
): Promise<TestServer> {
  const server = createServer({ noDelay: true }, (socket) => {
    let text = "";
    socket.on("error", () => {});
    socket.setEncoding("latin1").on("data", (part: string) => {
      text += part;
      for (let end = text.indexOf("\r\n\r\n"); end >= 0; end = text.indexOf("\r\n\r\n")) {
        const head = text.slice(0, end);
        text = text.slice(end + 4);
        script(socket, head);
      }
    });
  });
  return listen(server, host);
}

async function listen(server: Server, host: string): Promise<TestServer> {
  const sockets = new Set<Socket>();
  let accepted = 0;
  server.on("connection", (socket: Socket) => {
    accepted++;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.listen(0, host);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    port,
    get accepted() {
      return accepted;
    },
    get open() {
      return sockets.size;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** A client on a raw socket: what it receives is exactly what was on the wire. */
export interface TestClient extends Disposable {
  readonly socket: Socket;
  send(text: string): void;
  /** Waits for one response with a Content-Length and takes it off the wire. */
  response(): Promise<{ readonly status: number; readonly body: Buffer }>;
  /** Waits until `count` more bytes arrived than were taken. */
  received(count: number): Promise<void>;
  /** Everything until the server closes; undefined after a reset. */
  readonly closed: Promise<void>;
  /** Bytes that arrived and were not taken. */
  readonly pending: Buffer;
}

export async function connectClient(port: number): Promise<TestClient> {
  const socket = connect(port, "127.0.0.1");
  let parts: Buffer[] = [];
  let size = 0;
  let wake = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  socket.on("data", (chunk: Buffer) => {
    parts.push(chunk);
    size += chunk.length;
    wake.resolve();
    wake = Promise.withResolvers<void>();
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    closed.resolve();
    wake.resolve();
  });
  await once(socket, "connect");

  const joined = (): Buffer => {
    const all = Buffer.concat(parts, size);
    parts = [all];
    return all;
  };
  const more = async (enough: () => boolean): Promise<void> => {
    while (!enough()) {
      if (socket.destroyed) throw new Error(`the connection closed after ${size} bytes`);
      await wake.promise;
    }
  };
  return {
    socket,
    closed: closed.promise,
    get pending() {
      return joined();
    },
    send: (text) => void socket.write(text, "latin1"),
    received: (count) => more(() => size >= count),
    async response() {
      await more(() => joined().includes("\r\n\r\n"));
      const end = joined().indexOf("\r\n\r\n") + 4;
      const head = joined().toString("latin1", 0, end);
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0);
      await more(() => size >= end + length);
      const all = joined();
      parts = [all.subarray(end + length)];
      size -= end + length;
      return { status: Number(head.slice(9, 12)), body: all.subarray(end, end + length) };
    },
    [Symbol.dispose]: () => socket.destroy(),
  };
}

/** One GET on a connection of its own. */
export async function getBytes(port: number, path = "/", headers = ""): Promise<Buffer> {
  using client = await connectClient(port);
  client.send(`GET ${path} HTTP/1.1\r\nHost: test\r\n${headers}\r\n`);
  return (await client.response()).body;
}

/** A file with these bytes in a folder of its own, open for reading. */
export function openFile(
  bytes: Uint8Array,
): ByteSource & { readonly kind: "file" } & Disposable & { readonly path: string } {
  const folder = mkdtempSync(join(tmpdir(), "transfer-"));
  const path = join(folder, "content");
  writeFileSync(path, bytes);
  const fd = openSync(path, "r");
  return {
    kind: "file",
    fd,
    path,
    sizeBytes: bytes.length,
    [Symbol.dispose]() {
      closeSync(fd);
      rmSync(folder, { recursive: true });
    },
  };
}

/** Resolves once `condition` holds, looked at after every turn of the event loop; the test's own timeout is the bound. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
