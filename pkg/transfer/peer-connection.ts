// SPDX-License-Identifier: Apache-2.0
import { connect, type Socket } from "node:net";
import { systemErrorCode } from "#errors";
import { plainDescriptor } from "./client.ts";
import { TransferError } from "./errors.ts";
import { kernelCalls } from "./kernel-calls.ts";

/** Takes what arrives on a connection. One at a time; without one the connection does not read. */
export interface Receiver {
  /** Where the next bytes go; undefined for the scratch buffer, which is only good until `onBytes` returns. */
  buffer(): Buffer | undefined;
  /** Takes bytes that lie in that buffer. False stops reading until `read` is called again. */
  onBytes(chunk: Buffer): boolean;
  /** No more bytes: the peer ended cleanly, or with the error of the socket. Called at most once. */
  onEnd(error: Error | undefined): void;
}

/** A TCP connection to a peer whose bytes the kernel writes straight into our buffers. */
export interface PeerConnection {
  /** True when it carried a request before: the peer may have closed it in the meantime. */
  readonly reused: boolean;
  /** True while it can carry another request: not when the next bytes would lie in a buffer that somebody else may have by then. */
  readonly alive: boolean;
  write(text: string): void;
  /** Bounds what the kernel holds that was not read yet, where that can be bounded; for good, so it is not kept afterwards. */
  limitUnread(sizeBytes: number): void;
  /** Starts or continues reading for `receiver`. */
  read(receiver: Receiver): void;
  /** Marks it as waiting for the next request: bytes or an end close it, and it keeps no process alive. */
  rest(onClosed: () => void): void;
  /** Takes it back from rest. */
  wake(): void;
  /** Closes it; whoever still reads is told that it ended. */
  close(): void;
}

/**
 * Where all connections read response heads and idle noise into: bytes are parsed or copied before the callback
 * returns, so one buffer serves every connection and an idle connection costs none.
 */
const SCRATCH = Buffer.allocUnsafeSlow(64 * 1024);

/** Less holds only a few of the 64 KiB pieces in which a local network delivers. */
const MIN_UNREAD_BYTES = 256 * 1024;

export interface ConnectOptions {
  readonly signal: AbortSignal;
  readonly connectTimeoutMs: number;
}

/**
 * Opens a connection. `host` is an address (IPv6 without brackets) or a name. Rejects with the signal's reason.
 *
 * @throws TransferError TRANSFER_CONNECT_FAILED, TRANSFER_CONNECT_TIMEOUT
 */
export async function connectPeer(
  host: string,
  port: number,
  options: ConnectOptions,
): Promise<PeerConnection> {
  options.signal.throwIfAborted();
  const link: Link = { receiver: undefined, armed: SCRATCH, ended: false };
  const socket = connect({
    host,
    port,
    noDelay: true,
    onread: {
      buffer: () => {
        link.armed = link.receiver?.buffer() ?? SCRATCH;
        return link.armed;
      },
      callback: (count, buffer) => link.receiver?.onBytes((buffer as Buffer).subarray(0, count)) ?? false,
    },
  });
  try {
    await connected(socket, options);
  } catch (error) {
    socket.on("error", () => {});
    socket.destroy();
    throw connectError(error, host, port, options);
  }
  return createConnection(socket, link);
}

interface Link {
  receiver: Receiver | undefined;
  /** Where the next read goes. Node asks once after each read, not before the next, whoever reads by then. */
  armed: Buffer;
  ended: boolean;
  error?: Error;
}

function connected(socket: Socket, { signal, connectTimeoutMs }: ConnectOptions): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(
    () => reject(new Error(`no connection within ${connectTimeoutMs} ms`)),
    connectTimeoutMs,
  );
  const onAbort = (): void => reject(signal.reason as Error);
  socket.once("connect", resolve);
  socket.once("error", reject);
  signal.addEventListener("abort", onAbort, { once: true });
  return promise.finally(() => {
    clearTimeout(timer);
    socket.off("connect", resolve);
    socket.off("error", reject);
    signal.removeEventListener("abort", onAbort);
  });
}

function connectError(error: unknown, host: string, port: number, { signal }: ConnectOptions): unknown {
  if (signal.aborted) return signal.reason;
  const timedOut = systemErrorCode(error) === undefined;
  return new TransferError({
    code: timedOut ? "TRANSFER_CONNECT_TIMEOUT" : "TRANSFER_CONNECT_FAILED",
    message: `cannot connect to ${host} port ${port}`,
    cause: error,
  });
}

function createConnection(socket: Socket, link: Link): PeerConnection {
  let reused = false;
  let limited = false;
  let onClosed: (() => void) | undefined;

  const onEnd = (error?: Error): void => {
    if (link.ended) return;
    link.ended = true;
    if (error !== undefined) link.error = error;
    socket.destroy();
    onClosed?.();
    const { receiver } = link;
    link.receiver = undefined;
    receiver?.onEnd(error);
  };
  socket.on("error", onEnd);
  socket.on("end", () => onEnd());
  socket.on("close", () => onEnd());

  return {
    get reused() {
      return reused;
    },
    get alive() {
      return !link.ended && !socket.destroyed && link.armed === SCRATCH && !limited;
    },
    write(text) {
      socket.write(text, "latin1");
    },
    limitUnread(sizeBytes) {
      const fd = plainDescriptor(socket);
      if (fd !== undefined) kernelCalls()?.limitUnread(fd, Math.max(MIN_UNREAD_BYTES, sizeBytes));
      limited = true;
    },
    read(receiver) {
      if (link.ended) {
        receiver.onEnd(link.error);
        return;
      }
      link.receiver = receiver;
      socket.resume();
    },
    rest(closed) {
      reused = true;
      onClosed = closed;
      link.receiver = { buffer: () => undefined, onBytes: () => (onEnd(), false), onEnd: () => {} };
      socket.resume();
      socket.unref();
    },
    wake() {
      onClosed = undefined;
      link.receiver = undefined;
      socket.ref();
    },
    close: () => onEnd(),
  };
}
