// SPDX-License-Identifier: Apache-2.0
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { formatHostPort, parseListenAddress } from "./listen-address.ts";

export interface PlainServerOptions {
  /** `host:port`, `:port` or `[IPv6]:port`; port 0 takes a free one. */
  readonly address: string;
  /** More connections are closed at once. Default 1024. */
  readonly maxConnections?: number;
  /** How long requests under way may take after the server was told to stop. Default 30 s. */
  readonly drainTimeoutMs?: number;
}

export interface PlainServer extends AsyncDisposable {
  readonly port: number;
  /** `host:port` of the socket. */
  readonly address: string;
}

// A client that sends its head slower than this, or keeps an idle connection longer, is dropped.
const HEADERS_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_TIMEOUT_MS = 75_000;
const MAX_HEADER_BYTES = 16 * 1024;

/**
 * A bounded HTTP/1.1 server on node:http for handlers that write to the socket themselves.
 *
 * `handle` gets a signal that aborts when the client goes away before it has its answer. A rejected handler ends in 500, or in a closed
 * connection when the head was out already. Disposing stops listening, lets requests finish, then closes.
 *
 * @throws the system error of listen (EADDRINUSE, EACCES, EADDRNOTAVAIL)
 */
export async function openPlainServer(
  handle: (request: IncomingMessage, response: ServerResponse, signal: AbortSignal) => Promise<void>,
  options: PlainServerOptions,
): Promise<PlainServer> {
  const { host, port } = parseListenAddress(options.address);
  let stopping = false;
  const server = createServer(
    {
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: 5_000,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
      noDelay: true,
    },
    (request, response) => {
      const client = new AbortController();
      response.once("close", () => {
        if (!response.writableFinished) client.abort();
        // A kept-alive connection would otherwise hold the server open until its idle timeout.
        if (stopping) setImmediate(() => server.closeIdleConnections());
      });
      handle(request, response, client.signal).catch(() => {
        if (response.headersSent) response.destroy();
        else response.writeHead(500, { "content-length": 0 }).end();
      });
    },
  );
  server.maxConnections = options.maxConnections ?? 1024;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ port, ...(host === undefined ? {} : { host }) }, () => {
      server.off("error", reject);
      resolve();
    });
  });
  const bound = server.address() as AddressInfo;

  return {
    port: bound.port,
    address: formatHostPort(bound.address, bound.port),
    async [Symbol.asyncDispose]() {
      stopping = true;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      const deadline = setTimeout(() => server.closeAllConnections(), options.drainTimeoutMs ?? 30_000);
      try {
        await closed;
      } finally {
        clearTimeout(deadline);
      }
    },
  };
}
