// SPDX-License-Identifier: Apache-2.0
import { constants } from "node:crypto";
import { createServer, type RequestListener, type Server, type ServerOptions } from "node:http";
import { createServer as createTLSServer, type Server as TLSServer } from "node:https";
import type { AddressInfo } from "node:net";
import { TLSSocket, type TlsOptions } from "node:tls";
import { type FastifyReply, type FastifyRequest, fastify } from "fastify";
import { errorMessage, systemErrorCode } from "#errors";
import type { Logger } from "#log";
import type { CertificateSource, ServerCertificate } from "./certificate-source.ts";
import { formatHostPort, parseListenAddress } from "./listen-address.ts";

export interface HTTPRequest {
  /** As it came over the wire; empty when there was none. */
  readonly body: Uint8Array;
  /** Of a client that was authenticated in the handshake. */
  readonly clientCertificate: ClientCertificate | undefined;
  /** Aborts when the client goes away. */
  readonly signal: AbortSignal;
}

export interface ClientCertificate {
  readonly commonName: string;
  /** OIDs of the extended key usage extension; empty when the certificate has none. */
  readonly extendedKeyUsages: readonly string[];
}

export interface HTTPAnswer {
  readonly status: number;
  readonly body: string;
  readonly contentType: string;
}

export interface HTTPRoute {
  readonly method: "GET" | "POST";
  /** Exact path, without parameters. */
  readonly path: string;
  readonly handle: (request: HTTPRequest) => Promise<HTTPAnswer> | HTTPAnswer;
}

export interface HTTPServerDeps {
  readonly logger: Logger;
  /** Present: HTTPS. A replaced certificate serves new connections; those that are open stay. */
  readonly certificates?: CertificateSource;
  /** Called for every connection that ends in its handshake, with OpenSSL's reason. */
  readonly onHandshakeFailure?: (code: string) => void;
}

export interface HTTPServerOptions {
  /** `host:port`, `:port` or `[IPv6]:port`; port 0 takes a free one. */
  readonly address: string;
  readonly routes: readonly HTTPRoute[];
  /** Larger request bodies are answered with 413; default 16 KiB. */
  readonly maxBodyBytes?: number;
  /** More connections are closed at once; default 1024. */
  readonly maxConnections?: number;
  /** From the first byte of a request to its last; default 10 s. */
  readonly requestTimeoutMs?: number;
  /** An idle connection is kept for this time; default 75 s. */
  readonly keepAliveTimeoutMs?: number;
  /** How long requests under way may take after the server was told to stop; default 10 s. */
  readonly drainTimeoutMs?: number;
  /** Once it aborts, every answer closes its connection: clients go elsewhere before the server does. */
  readonly draining?: AbortSignal;
}

export interface HTTPServer extends AsyncDisposable {
  readonly port: number;
  /** `host:port` of the socket. */
  readonly address: string;
}

const MAX_HEADER_BYTES = 16 * 1024;
const DEFAULT_MAX_BODY_BYTES = 16 * 1024;
const DEFAULT_MAX_CONNECTIONS = 1024;
const DEFAULT_REQUEST_TIMEOUT_MS = 10_000;
const DEFAULT_KEEP_ALIVE_TIMEOUT_MS = 75_000;
const DEFAULT_DRAIN_TIMEOUT_MS = 10_000;
const HANDSHAKE_TIMEOUT_MS = 10_000;
const CHECK_INTERVAL_MS = 5_000;

/**
 * A bounded HTTP or HTTPS server for programs in the seed and the garden, on fastify.
 *
 * Unknown paths are 404, known paths with another method 405. A handler that throws is answered with 500 and
 * logged. TLS is 1.3; there is no session resumption, so that every connection is judged by the authorities of now.
 *
 * @throws the system error of listen (EADDRINUSE, EACCES, EADDRNOTAVAIL); RangeError for a malformed address
 */
export async function createHTTPServer(
  deps: HTTPServerDeps,
  options: HTTPServerOptions,
): Promise<HTTPServer> {
  const { logger, certificates } = deps;
  const { host, port } = parseListenAddress(options.address);
  const app = fastify({
    serverFactory: (listener) => createNodeServer(listener, options, deps),
    exposeHeadRoutes: false,
    bodyLimit: options.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES,
    forceCloseConnections: "idle",
    // A request that is already here is answered; one that comes too late gets no connection.
    return503OnClosing: false,
  });
  app.addHook("onSend", async (_request, reply) => {
    if (options.draining?.aborted) reply.header("connection", "close");
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  for (const route of options.routes) {
    app.route({
      method: route.method,
      url: route.path,
      handler: async (request, reply) => {
        const answer = await route.handle(toRequest(request, reply));
        return reply.code(answer.status).type(answer.contentType).send(answer.body);
      },
    });
  }
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split("?", 1)[0];
    const methods = options.routes.filter((route) => route.path === path).map((route) => route.method);
    if (methods.length === 0) return sendProblem(reply, 404, "not found");
    return sendProblem(reply.header("allow", methods.join(", ")), 405, "method not allowed");
  });
  app.setErrorHandler((error, request, reply) => {
    const status = statusOf(error);
    if (status < 500) return sendProblem(reply, status, errorMessage(error));
    logger.error("request failed", { path: request.url.slice(0, 200), err: error });
    return sendProblem(reply, status, "internal error");
  });

  try {
    await listen(app, host, port);
  } catch (error) {
    await app.close();
    throw error;
  }
  using subscriptions = new DisposableStack();
  if (certificates) {
    const server = app.server as unknown as TLSServer;
    subscriptions.use(
      certificates.subscribe((certificate) => server.setSecureContext(contextOf(certificate))),
    );
    server.setSecureContext(contextOf(certificates.current)); // replaced while listen was under way
  }
  const bound = app.server.address() as AddressInfo;
  const running = subscriptions.move();
  return {
    port: bound.port,
    address: formatHostPort(bound.address, bound.port),
    async [Symbol.asyncDispose]() {
      running.dispose();
      const drainTimeoutMs = options.drainTimeoutMs ?? DEFAULT_DRAIN_TIMEOUT_MS;
      const deadline = setTimeout(() => app.server.closeAllConnections(), drainTimeoutMs);
      try {
        await app.close();
      } finally {
        clearTimeout(deadline);
      }
    },
  };
}

function createNodeServer(
  listener: RequestListener,
  options: HTTPServerOptions,
  deps: HTTPServerDeps,
): Server {
  const requestTimeoutMs = options.requestTimeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS;
  const limits: ServerOptions = {
    headersTimeout: requestTimeoutMs,
    requestTimeout: requestTimeoutMs,
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    keepAliveTimeout: options.keepAliveTimeoutMs ?? DEFAULT_KEEP_ALIVE_TIMEOUT_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
  };
  const { certificates } = deps;
  const server = certificates
    ? createTLSServer({ ...limits, ...tlsOptions(certificates.current) }, listener)
    : createServer(limits, listener);
  server.maxConnections = options.maxConnections ?? DEFAULT_MAX_CONNECTIONS;
  server.on("tlsClientError", (error: Error, socket: TLSSocket) => {
    const code = systemErrorCode(error) ?? "unknown";
    deps.logger.debug("TLS handshake failed", { code, remote: socket.remoteAddress });
    deps.onHandshakeFailure?.(code);
  });
  return server;
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

/** Without a host: all addresses, of IPv4 alone where the machine has no IPv6. */
async function listen(
  app: { listen(options: { host: string; port: number }): Promise<string> },
  host: string | undefined,
  port: number,
): Promise<void> {
  try {
    await app.listen({ host: host ?? "::", port });
  } catch (error) {
    if (host !== undefined || systemErrorCode(error) !== "EAFNOSUPPORT") throw error;
    await app.listen({ host: "0.0.0.0", port });
  }
}

function toRequest(request: FastifyRequest, reply: FastifyReply): HTTPRequest {
  const client = new AbortController();
  reply.raw.once("close", () => client.abort());
  return {
    body: request.body instanceof Uint8Array ? request.body : new Uint8Array(),
    clientCertificate: clientCertificateOf(request.raw.socket),
    signal: client.signal,
  };
}

function clientCertificateOf(socket: object): ClientCertificate | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  const { subject, ext_key_usage: usages = [] } = socket.getPeerCertificate();
  return { commonName: String(subject?.CN ?? ""), extendedKeyUsages: usages };
}

function statusOf(error: unknown): number {
  const status = error instanceof Error && "statusCode" in error ? error.statusCode : undefined;
  return typeof status === "number" && status >= 400 && status < 600 ? status : 500;
}

function sendProblem(reply: FastifyReply, status: number, message: string): FastifyReply {
  return reply.code(status).type("application/json").send(JSON.stringify({ message }));
}
