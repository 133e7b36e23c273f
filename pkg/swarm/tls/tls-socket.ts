// SPDX-License-Identifier: Apache-2.0
import type { Socket } from "node:net";
import { connect, type SecureContext, TLSSocket } from "node:tls";
import type { MessageStream } from "@libp2p/interface";
import { SwarmError } from "../errors.ts";

/** The part of libp2p's TCP connection that is used here. */
interface TcpConnection extends MessageStream {
  socket: Socket;
  readonly readBuffer: {
    readonly byteLength: number;
    subarray(): Uint8Array;
    consume(sizeBytes: number): void;
  };
  onData(data: Uint8Array): void;
  sendReset(): void;
  safeDispatchEvent(type: string): boolean;
}

export interface TlsSocketOptions {
  readonly side: "server" | "client";
  readonly context: SecureContext;
  /** In order of preference, which is the client's. */
  readonly applicationProtocols: readonly string[];
  readonly signal: AbortSignal | undefined;
}

/**
 * Puts TLS between a TCP connection of libp2p and its socket's handle, so that bytes pass through no more streams than
 * before. Resolves after the handshake, without having looked at the peer's certificate; nothing is read from the
 * connection until `resumeOver`.
 *
 * @throws SwarmError SWARM_HANDSHAKE_FAILED
 */
export async function startTls(stream: MessageStream, options: TlsSocketOptions): Promise<TLSSocket> {
  const connection = stream as TcpConnection;
  const raw = connection.socket;
  options.signal?.throwIfAborted();
  if (raw.destroyed) throw failed("the connection is closed");
  raw.pause();
  raw.removeAllListeners("data");
  // What came right behind the peer's proposal belongs to its handshake.
  const early = connection.readBuffer.subarray();
  connection.readBuffer.consume(early.length);
  if (early.length > 0) raw.unshift(early);
  const socket = wrap(raw, options);
  socket.on("error", (cause) => connection.abort(cause));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onError = (cause: Error): void => reject(failed(cause.message, cause));
  const onClose = (): void => reject(failed("the peer closed the connection"));
  const onAbort = (): void => reject(failed("it took too long", options.signal?.reason));
  const established = options.side === "server" ? "secure" : "secureConnect";
  socket.once(established, resolve).once("error", onError).once("close", onClose);
  options.signal?.addEventListener("abort", onAbort);
  try {
    await promise;
  } finally {
    socket.off("error", onError).off("close", onClose);
    options.signal?.removeEventListener("abort", onAbort);
  }
  return socket;
}

/** Lets the connection go on over the TLS socket; it closes and ends with the one below, as before. */
export function resumeOver(stream: MessageStream, socket: TLSSocket): void {
  const connection = stream as TcpConnection;
  const raw = connection.socket;
  connection.socket = socket;
  connection.sendReset = () => void raw.resetAndDestroy();
  socket.on("drain", () => connection.safeDispatchEvent("drain"));
  socket.on("data", (data: Buffer) => connection.onData(data));
}

function wrap(raw: Socket, options: TlsSocketOptions): TLSSocket {
  const { context, applicationProtocols } = options;
  if (options.side === "client") {
    return connect({
      socket: raw,
      secureContext: context,
      ALPNProtocols: [...applicationProtocols],
      rejectUnauthorized: false, // the certificate is judged by other rules
    });
  }
  return new TLSSocket(raw, {
    isServer: true,
    secureContext: context,
    ALPNCallback: ({ protocols }) => protocols.find((each) => applicationProtocols.includes(each)),
    requestCert: true,
    rejectUnauthorized: false,
  });
}

function failed(reason: string, cause?: unknown): SwarmError {
  return new SwarmError({ code: "SWARM_HANDSHAKE_FAILED", message: `TLS handshake: ${reason}`, cause });
}
