// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import { TLSSocket } from "node:tls";
import type { Logger } from "#log";
import { type BodyBuffers, createBodyBuffers } from "./body-buffers.ts";
import type { CertificateSource } from "./certificate-source.ts";
import { openPlainServer, type PlainServer, type PlainServerOptions } from "./plain-server.ts";

export interface HTTPRequest {
  /** As it came over the wire, until the request is answered; empty when there was none. */
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
  /** Called for every request that was answered, with the time since it was there to its last byte. */
  readonly onAnswered?: (durationMs: number) => void;
}

export interface HTTPServerOptions extends Omit<PlainServerOptions, "tls"> {
  readonly routes: readonly HTTPRoute[];
  /** Larger request bodies are answered with 413; default 16 KiB. */
  readonly maxBodyBytes?: number;
  /** How long requests under way may take after the server was told to stop; default 10 s. */
  readonly drainTimeoutMs?: number;
  /** Once it aborts, every answer closes its connection: clients go elsewhere before the server does. */
  readonly draining?: AbortSignal;
}

export type HTTPServer = PlainServer;

const DEFAULT_MAX_BODY_BYTES = 16 * 1024;
const DEFAULT_DRAIN_TIMEOUT_MS = 10_000;

/**
 * Routes with whole bodies on the bounded server, for programs in the seed and the garden.
 *
 * Unknown paths are 404, known paths with another method 405. A handler that throws is answered with 500 and
 * logged, a body beyond the limit with 413.
 *
 * @throws the system error of listen (EADDRINUSE, EACCES, EADDRNOTAVAIL); RangeError for a malformed address
 */
export function createHTTPServer(deps: HTTPServerDeps, options: HTTPServerOptions): Promise<HTTPServer> {
  const { logger, certificates } = deps;
  const { routes, maxBodyBytes = DEFAULT_MAX_BODY_BYTES, draining, ...limits } = options;
  const buffers = createBodyBuffers();
  const serve = async (
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<void> => {
    let heardMs = performance.now();
    if (deps.onAnswered) request.once("end", () => (heardMs = performance.now()));
    const path = (request.url ?? "").split("?", 1)[0] as string;
    const answer = await answerTo(request, path, signal).catch((error: unknown) => {
      if (!response.destroyed) logger.error("request failed", { path: path.slice(0, 200), err: error });
      return problem(500, "internal error");
    });
    const sizeBytes = Buffer.byteLength(answer.body);
    // A client that is not heard to its end would take what it still sends for the next request.
    const closes = draining?.aborted === true || !request.complete;
    response.writeHead(answer.status, {
      ...answer.headers,
      "content-type": answer.contentType,
      "content-length": sizeBytes,
      ...(closes && { connection: "close" }),
    });
    // Text that is all ASCII is the same in both, and Node writes it in less time.
    response.end(answer.body, sizeBytes === answer.body.length ? "latin1" : "utf8");
    deps.onAnswered?.(performance.now() - heardMs);
  };
  const answerTo = async (request: IncomingMessage, path: string, signal: AbortSignal): Promise<Answer> => {
    const onPath = routes.filter((route) => route.path === path);
    if (onPath.length === 0) return problem(404, "not found");
    const route = onPath.find(({ method }) => method === request.method);
    if (!route) {
      const allow = onPath.map(({ method }) => method).join(", ");
      return problem(405, "method not allowed", { allow });
    }
    using body = await readBody(request, maxBodyBytes, buffers);
    if (!body) return problem(413, `the body is larger than ${maxBodyBytes} bytes`);
    return await route.handle({
      body: body.bytes,
      get clientCertificate() {
        return clientCertificateOf(request.socket);
      },
      signal,
    });
  };
  return openPlainServer(serve, {
    ...limits,
    drainTimeoutMs: options.drainTimeoutMs ?? DEFAULT_DRAIN_TIMEOUT_MS,
    ...(certificates && {
      tls: {
        certificates,
        onHandshakeFailure(code, socket) {
          logger.debug("TLS handshake failed", { code, remote: socket.remoteAddress });
          deps.onHandshakeFailure?.(code);
        },
      },
    }),
  });
}

interface Answer extends HTTPAnswer {
  readonly headers?: OutgoingHttpHeaders;
}

/** A request's body, in memory that others use once it is disposed. */
interface Body extends Disposable {
  readonly bytes: Uint8Array;
}

/** All of it, or undefined as soon as it is too large; rejects when the client goes away. */
function readBody(
  request: IncomingMessage,
  maxBytes: number,
  buffers: BodyBuffers,
): Promise<Body | undefined> {
  const announcedBytes = Number(request.headers["content-length"] ?? 0);
  if (announcedBytes > maxBytes) return Promise.resolve(undefined);
  return new Promise((resolve, reject) => {
    let buffer = buffers.take(announcedBytes);
    let sizeBytes = 0;
    const onData = (chunk: Buffer): void => {
      const endBytes = sizeBytes + chunk.length;
      if (endBytes > maxBytes) {
        request.off("data", onData).resume();
        buffers.giveBack(buffer);
        resolve(undefined);
        return;
      }
      if (endBytes > buffer.length) {
        const larger = buffers.take(endBytes);
        buffer.copy(larger, 0, 0, sizeBytes);
        buffers.giveBack(buffer);
        buffer = larger;
      }
      chunk.copy(buffer, sizeBytes);
      sizeBytes = endBytes;
    };
    request
      .on("data", onData)
      .once("end", () =>
        resolve({
          bytes: buffer.subarray(0, sizeBytes),
          [Symbol.dispose]: () => buffers.giveBack(buffer),
        }),
      )
      .once("error", reject);
  });
}

function clientCertificateOf(socket: object): ClientCertificate | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  const { subject, ext_key_usage: usages = [] } = socket.getPeerCertificate();
  return { commonName: String(subject?.CN ?? ""), extendedKeyUsages: usages };
}

function problem(status: number, message: string, headers: OutgoingHttpHeaders = {}): Answer {
  return { status, contentType: "application/json", body: JSON.stringify({ message }), headers };
}
