// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import { Socket } from "node:net";
import { kernelCalls } from "./kernel-calls.ts";

/** The receiving side of a transfer: a response whose head was given and whose body bytes we write ourselves. */
export interface Client {
  /**
   * The descriptor for the kernel to write to; undefined when bytes must pass through Node (TLS, no real socket) and
   * once the socket closed. Ask anew before every use: a closed number soon belongs to somebody else.
   */
  readonly socketFd: number | undefined;
  /** False once nothing more can be written. */
  readonly writable: boolean;
  /** True when the kernel has every byte that was written so far. */
  readonly drained: boolean;
  /** Sends the head if that was not done. */
  sendHead(): void;
  /** False lets the kernel wait until segments are full; true, as Node's servers have it, sends what it holds back. */
  setNoDelay(noDelay: boolean): void;
  /** Bounds what the kernel takes beyond what it has sent, where that can be bounded. */
  limitUnsent(sizeBytes: number): void;
  /**
   * Hands on one chunk, after the head. True when the kernel has all of it, so that the chunk may be overwritten at once. Else the
   * chunk is lent until `written` is called, which happens in every case, also when the client goes away.
   */
  write(chunk: Uint8Array, written: () => void): boolean;
  /** Calls back when the client goes away. Returns how to stop listening. */
  onGone(gone: () => void): () => void;
}

/**
 * Waits until the response owns its connection: with pipelined requests it is not its turn at once. Undefined when
 * the client went away or the signal aborted first.
 *
 * Body bytes then go to the socket directly: `ServerResponse.write` corks it for every chunk, which costs a turn of
 * the event loop and hides whether the kernel took the bytes.
 */
export async function claimClient(
  response: ServerResponse,
  signal: AbortSignal,
): Promise<Client | undefined> {
  if (signal.aborted) return undefined;
  if (response.socket === null && !(await ownsSocket(response, signal))) return undefined;
  const socket = response.socket;
  if (signal.aborted || socket === null || socket.destroyed || response.writableEnded) return undefined;
  // Content-Length is met by bytes that ServerResponse does not see.
  response.strictContentLength = false;
  return socket instanceof Socket ? socketClient(response, socket) : responseClient(response);
}

function ownsSocket(response: ServerResponse, signal: AbortSignal): Promise<boolean> {
  const connection = response.req.socket;
  if (connection.destroyed) return Promise.resolve(false);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  // "socket" is emitted before what was buffered is written out; the promise continues after that.
  const onSocket = (): void => resolve(true);
  const onLost = (): void => resolve(false);
  response.once("socket", onSocket);
  connection.once("close", onLost);
  signal.addEventListener("abort", onLost, { once: true });
  return promise.finally(() => {
    response.off("socket", onSocket);
    connection.off("close", onLost);
    signal.removeEventListener("abort", onLost);
  });
}

function socketClient(response: ServerResponse, socket: Socket): Client {
  let headSent = false;
  return {
    get socketFd() {
      return plainDescriptor(socket);
    },
    get writable() {
      return socket.writable;
    },
    get drained() {
      return socket.writableLength === 0;
    },
    write(chunk, written) {
      let lent = false;
      if (!headSent) socket.cork(); // head and first bytes in one system call
      this.sendHead();
      socket.write(chunk, () => {
        if (lent) written();
      });
      socket.uncork();
      // Node tries the system call at once; nothing left over means the kernel took everything (or the socket
      // is broken, which `writable` tells).
      lent = socket.writableLength > 0;
      return !lent;
    },
    sendHead() {
      if (headSent) return;
      headSent = true;
      response.flushHeaders();
    },
    setNoDelay(noDelay) {
      socket.setNoDelay(noDelay);
    },
    limitUnsent(sizeBytes) {
      const fd = plainDescriptor(socket);
      if (fd !== undefined) kernelCalls()?.limitUnsent(fd, sizeBytes);
    },
    onGone(gone) {
      socket.on("close", gone);
      return () => socket.off("close", gone);
    },
  };
}

/** For responses without a real socket (in-process injection), and where only the end of the response matters. */
export function responseClient(response: ServerResponse): Client {
  const connection = response.req.socket;
  return {
    socketFd: undefined,
    get writable() {
      return isClientThere(response);
    },
    get drained() {
      return response.writableLength === 0;
    },
    write(chunk, written) {
      response.write(chunk, () => written());
      return false;
    },
    sendHead() {
      response.flushHeaders();
    },
    setNoDelay() {},
    limitUnsent() {},
    onGone(gone) {
      // A response that still waits for its turn is not told when the connection closes.
      response.on("close", gone);
      connection.on("close", gone);
      return () => {
        response.off("close", gone);
        connection.off("close", gone);
      };
    },
  };
}

/** Whether a response can still take its end; also while it waits behind an earlier one of its connection. */
export function isClientThere(response: ServerResponse): boolean {
  return response.writable && !response.destroyed && !response.req.socket.destroyed;
}

/** Writes one chunk; resolves when it may be overwritten. False when the client cannot take more. */
export function writeBlock(client: Client, chunk: Uint8Array): Promise<boolean> {
  if (!client.writable) return Promise.resolve(false);
  return new Promise((resolve) => {
    if (client.write(chunk, () => resolve(client.writable))) resolve(client.writable);
  });
}

/** Node has no public way to ask for a socket's descriptor. Only a plain socket's may be written to behind its back. */
export function plainDescriptor(socket: Socket): number | undefined {
  if (!socket.writable || "encrypted" in socket) return undefined;
  const handle = (socket as Socket & { readonly _handle?: { readonly fd?: unknown } | null })._handle;
  return typeof handle?.fd === "number" && handle.fd >= 0 ? handle.fd : undefined;
}

/** Ends a response whose whole body was written; the connection stays good for the next request. */
export function endResponse(response: ServerResponse): void {
  response.strictContentLength = false;
  response.end();
}

/** Closes the connection of a response whose body cannot be finished, so that the client sees it was cut. */
export function cutResponse(response: ServerResponse): void {
  response.destroy();
}
