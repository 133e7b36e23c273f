// SPDX-License-Identifier: Apache-2.0
import { validateHeaderName, validateHeaderValue } from "node:http";
import { TransferError } from "./errors.ts";
import { connectPeer, type PeerConnection } from "./peer-connection.ts";
import type { PeerPool } from "./peer-pool.ts";
import { createPeerResponse, type PeerResponse } from "./peer-response.ts";
import { HEAD_LIMIT_BYTES, parseResponseHead, type ResponseHead } from "./response-head.ts";

export interface PeerRequest {
  /** Address or name of the peer; an IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
  readonly method: "GET" | "HEAD";
  /** Path and query, already encoded. */
  readonly path: string;
  /** `host` and `connection` are set here. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface PeerRequestOptions {
  /** Bounds connecting and the wait for the head. It has no say any more once the response is there. */
  readonly signal: AbortSignal;
  /** Default 1 s. */
  readonly connectTimeoutMs?: number;
  /** Where idle connections are taken from and left; without it each request has its own connection. */
  readonly pool?: PeerPool;
  /** Called when a connection is there (new or idle), before the request is written. */
  onConnected?(): void;
}

const DEFAULT_CONNECT_TIMEOUT_MS = 1_000;
/** Interim (1xx) heads that are skipped before the final one. */
const INTERIM_HEADS = 4;

/**
 * Sends one HTTP/1.1 request to a peer and resolves when the head of the response is there. The caller disposes the
 * response. Rejects with the signal's reason when it aborts first.
 *
 * An idle connection that the peer closed just then is replaced by a new one, once, without the caller noticing:
 * GET and HEAD may be sent twice.
 *
 * @throws TransferError TRANSFER_REQUEST_INVALID, TRANSFER_CONNECT_FAILED, _CONNECT_TIMEOUT, _HEAD_INCOMPLETE,
 *   _HEAD_TOO_LARGE, _HEAD_INVALID, _LENGTH_INVALID, _CODING_UNSUPPORTED
 */
export async function requestPeer(request: PeerRequest, options: PeerRequestOptions): Promise<PeerResponse> {
  const { signal, pool } = options;
  const text = formatRequest(request, pool !== undefined);
  signal.throwIfAborted();
  const idle = pool?.take(peerName(request));
  if (idle !== undefined) {
    try {
      return await exchange(idle, text, request, options);
    } catch (error) {
      if (!(error instanceof ClosedBeforeAnswer)) throw error;
    }
  }
  const connection = await connectPeer(request.host, request.port, {
    signal,
    connectTimeoutMs: options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
  });
  return exchange(connection, text, request, options);
}

/** The peer closed a connection before it answered with a single byte. */
class ClosedBeforeAnswer extends TransferError {
  constructor(cause: Error | undefined) {
    super({
      code: "TRANSFER_HEAD_INCOMPLETE",
      message: "the peer closed the connection without an answer",
      cause,
    });
  }
}

async function exchange(
  connection: PeerConnection,
  text: string,
  request: PeerRequest,
  { signal, pool, onConnected }: PeerRequestOptions,
): Promise<PeerResponse> {
  try {
    onConnected?.();
    connection.write(text);
    const { head, rest } = await readHead(connection, signal);
    return createPeerResponse({
      connection,
      head,
      early: rest,
      method: request.method,
      keep(idleTimeoutMs) {
        if (pool === undefined) connection.close();
        else pool.keep(peerName(request), connection, idleTimeoutMs);
      },
    });
  } catch (error) {
    connection.close();
    throw error;
  }
}

interface ReceivedHead {
  readonly head: ResponseHead;
  /** Copies of the bytes that came behind the head. */
  readonly rest: Buffer;
}

/** Reads until the final head is complete, then stops reading. Holds at most the head's limit and one read. */
function readHead(connection: PeerConnection, signal: AbortSignal): Promise<ReceivedHead> {
  const { promise, resolve, reject } = Promise.withResolvers<ReceivedHead>();
  let received: Buffer = Buffer.alloc(0);
  let silent = true;
  let interimLeft = INTERIM_HEADS;

  const onAbort = (): void => reject(signal.reason as Error);
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });

  connection.read({
    buffer: () => undefined,
    onBytes(chunk) {
      silent = false;
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      try {
        const complete = takeHead();
        if (complete !== undefined) resolve(complete);
        else received = Buffer.from(received); // the chunk lies in a buffer that is about to be overwritten
        return complete === undefined;
      } catch (error) {
        reject(error as Error);
        return false;
      }
    },
    onEnd(error) {
      reject(
        silent
          ? new ClosedBeforeAnswer(error)
          : new TransferError({
              code: "TRANSFER_HEAD_INCOMPLETE",
              message: "the peer closed the connection within the response head",
              cause: error,
            }),
      );
    },
  });
  return promise.finally(() => signal.removeEventListener("abort", onAbort));

  function takeHead(): ReceivedHead | undefined {
    for (;;) {
      const head = parseResponseHead(received);
      if (head === undefined) return undefined;
      received = received.subarray(head.sizeBytes);
      if (head.status >= 200) return { head, rest: Buffer.from(received) };
      if (head.status === 101 || interimLeft-- === 0) {
        throw new TransferError({
          code: "TRANSFER_HEAD_INVALID",
          message: `unexpected status ${head.status}`,
        });
      }
    }
  }
}

function peerName({ host, port }: PeerRequest): string {
  return `${host} ${port}`;
}

/** The request as it goes over the wire. Anything that could start a second request is refused. */
function formatRequest(request: PeerRequest, keepAlive: boolean): string {
  const { host, port, method, path, headers } = request;
  if (!/^\/[\x21-\x7e]*$/.test(path)) throw requestInvalid("the path is not an encoded absolute path");
  if (!/^[A-Za-z0-9._:%-]+$/.test(host)) throw requestInvalid("the host is neither an address nor a name");
  // A zone (fe80::1%eth0) means something on this machine only.
  const name = host.includes(":") ? `[${host.replace(/%.*$/, "")}]` : host;
  const lines = [`${method} ${path} HTTP/1.1`, `Host: ${name}:${port}`];
  for (const [field, value] of Object.entries(headers)) {
    try {
      validateHeaderName(field);
      validateHeaderValue(field, value);
    } catch (cause) {
      throw requestInvalid(`the header ${JSON.stringify(field)} cannot be sent`, cause);
    }
    lines.push(`${field}: ${value}`);
  }
  lines.push(`Connection: ${keepAlive ? "keep-alive" : "close"}`, "", "");
  const text = lines.join("\r\n");
  if (text.length > HEAD_LIMIT_BYTES) throw requestInvalid("the request head is too large");
  return text;
}

function requestInvalid(message: string, cause?: unknown): TransferError {
  return new TransferError({ code: "TRANSFER_REQUEST_INVALID", message, cause });
}
