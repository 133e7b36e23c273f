// SPDX-License-Identifier: Apache-2.0
import { constants } from "node:crypto";
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from "node:http";
import { createServer as createTLSServer, type Server as TLSServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { TLSSocket, TlsOptions } from "node:tls";
import { systemErrorCode } from "#errors";
import type { CertificateSource, ServerCertificate } from "./certificate-source.ts";
import { formatHostPort, parseListenAddress } from "./listen-address.ts";

export interface PlainServerOptions {
  /** `host:port`, `:port` or `[IPv6]:port`; port 0 takes a free one. */
  readonly address: string;
  /** More connections are closed at once. Default 1024. */
  readonly maxConnections?: number;
  /** From the first byte of a request to its last. Default 10 s. */
  readonly requestTimeoutMs?: number;
  /** An idle connection is kept for this time. Default 75 s. */
  readonly keepAliveTimeoutMs?: number;
  /** How long requests under way may take after the server was told to stop. Default 30 s. */
  readonly drainTimeoutMs?: number;
  /** Present: HTTPS. */
  readonly tls?: ServerTLS;
}

export interface ServerTLS {
  /** A replaced certificate serves new connections; those that are open stay. */
  readonly certificates: CertificateSource;
  /** Called for every connection that ends in its handshake, with OpenSSL's reason. */
  readonly onHandshakeFailure?: (code: string, socket: TLSSocket) => void;
}

export interface PlainServer extends AsyncDisposable {
  readonly port: number;
  /** `host:port` of the socket. */
  readonly address: string;
}

// A client that sends its head slower than this, or keeps an idle connection longer, is dropped.
const REQUEST_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_TIMEOUT_MS = 75_000;
const HANDSHAKE_TIMEOUT_MS = 10_000;
const CHECK_INTERVAL_MS = 5_000;
const MAX_HEADER_BYTES = 16 * 1024;

/**
 * A bounded HTTP/1.1 server on node:http for handlers that write to the socket themselves, over TLS 1.3 with certificates.
 * There is no session resumption, so that every connection is judged by the authorities of now.
 *
 * `handle` gets a signal that aborts when the client goes away before it has its answer. A rejected handler ends in 500, or in a closed
 * connection when the head was out already. Disposing stops listening, lets requests finish, then closes.
 *
 * @throws the system error of listen (EADDRINUSE, EACCES, EADDRNOTAVAIL); RangeError for a malformed address
 */
export async function openPlainServer(
  handle: (request: IncomingMessage, response: ServerResponse, signal: AbortSignal) => Promise<void>,
  options: PlainServerOptions,
): Promise<PlainServer> {
  const { host, port } = parseListenAddress(options.address);
  let stopping = false;
  const server = createNodeServer(options, (request, response) => {
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
  });
  server.maxConnections = options.maxConnections ?? 1024;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ port, ...(host === undefined ? {} : { host }) }, () => {
      server.off("error", reject);
      resolve();
    });
  });
  using subscriptions = new DisposableStack();
  if (options.tls) subscriptions.use(followCertificates(server as TLSServer, options.tls.certificates));
  const bound = server.address() as AddressInfo;
  const running = subscriptions.move();

  return {
    port: bound.port,
    address: formatHostPort(bound.address, bound.port),
    async [Symbol.asyncDispose]() {
      stopping = true;
      running.dispose();
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

function createNodeServer(options: PlainServerOptions, listener: RequestListener): Server {
  const requestTimeoutMs = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
  const limits: ServerOptions = {
    headersTimeout: requestTimeoutMs,
    requestTimeout: requestTimeoutMs,
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    keepAliveTimeout: options.keepAliveTimeoutMs ?? KEEP_ALIVE_TIMEOUT_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
    noDelay: true,
  };
  if (!options.tls) return createServer(limits, listener);
  const { certificates, onHandshakeFailure } = options.tls;
  const server = createTLSServer({ ...limits, ...tlsOptions(certificates.current) }, listener);
  server.on("tlsClientError", (error: Error, socket: TLSSocket) =>
    onHandshakeFailure?.(systemErrorCode(error) ?? "unknown", socket),
  );
  return server;
}

function followCertificates(server: TLSServer, certificates: CertificateSource): Disposable {
  const subscription = certificates.subscribe((next) => server.setSecureContext(contextOf(next)));
  server.setSecureContext(contextOf(certificates.current)); // replaced while listen was under way
  return subscription;
}

function tlsOptions(certificate: ServerCertificate): TlsOptions {
  const demandsClients = certificate.clientAuthoritiesPem !== undefined;
  return {
    ...contextOf(certificate),
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    requestCert: demandsClients,
    rejectUnauthorized: demandsClients,
  };
}

function contextOf(certificate: ServerCertificate): TlsOptions {
  return {
    cert: certificate.certificatePem,
    key: certificate.keyPem,
    ca: certificate.clientAuthoritiesPem,
    minVersion: "TLSv1.3",
    // A resumed session is not verified anew: a client of an authority that is gone would stay welcome.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}
