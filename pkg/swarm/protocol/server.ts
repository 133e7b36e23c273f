// SPDX-License-Identifier: Apache-2.0
import type { Connection, Stream } from "@libp2p/interface";
import type { Logger } from "#log";
import { SwarmError } from "../errors.ts";
import { binaryString } from "../key.ts";
import { createFrameReader } from "./frame.ts";

export interface ProtocolServer extends Disposable {
  /** Answers the messages of one inbound stream, in order, until the peer ends it. */
  serve(stream: Stream, connection: Connection): void;
  readonly openStreams: number;
}

export interface ProtocolServerOptions {
  /** All inbound streams together. Default 2000; one more is reset. */
  readonly maxStreams?: number;
  /** A stream without a message for this long is reset. Default 1 min, as in go-libp2p-kad-dht. */
  readonly idleTimeoutMs?: number;
  /** Bytes of unfinished frames, all streams together. Default 8 MiB; the stream that goes over it is reset. */
  readonly maxBufferedBytes?: number;
}

const MAX_STREAMS = 2000;
const IDLE_TIMEOUT_MS = 60_000;
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024;

interface ServedStream {
  readonly stream: Stream;
  lastMessageAtMs: number;
}

/**
 * Cuts inbound streams into frames and writes the answers. A peer that does not read its answers is not read from
 * either; one that sends what is no message of the protocol loses its stream.
 */
export function createProtocolServer(
  deps: {
    readonly logger: Logger;
    readonly now: () => number;
    readonly answer: (sender: string, frame: Uint8Array) => Uint8Array | undefined;
  },
  options: ProtocolServerOptions = {},
): ProtocolServer {
  const maxStreams = options.maxStreams ?? MAX_STREAMS;
  const idleTimeoutMs = options.idleTimeoutMs ?? IDLE_TIMEOUT_MS;
  const maxBufferedBytes = options.maxBufferedBytes ?? MAX_BUFFERED_BYTES;
  const open = new Set<ServedStream>();
  let bufferedBytes = 0;

  const sweeper = setInterval(
    () => {
      const limit = deps.now() - idleTimeoutMs;
      for (const served of open) {
        if (served.lastMessageAtMs < limit)
          served.stream.abort(new SwarmError({ code: "SWARM_PEER_UNREACHABLE", message: "stream was idle" }));
      }
    },
    Math.max(idleTimeoutMs / 6, 1),
  );
  sweeper.unref();

  return {
    get openStreams() {
      return open.size;
    },
    serve(stream, connection) {
      if (open.size >= maxStreams) {
        stream.abort(new SwarmError({ code: "SWARM_PEER_UNREACHABLE", message: "too many streams" }));
        return;
      }
      const served: ServedStream = { stream, lastMessageAtMs: deps.now() };
      const sender = binaryString(connection.remotePeer.toMultihash().bytes);
      const frames = createFrameReader();
      let ownBufferedBytes = 0;
      /** The peer must read answers before it gets more. */
      let isHeld = false;
      /** The peer has sent all that it will. */
      let isEnded = false;
      open.add(served);

      function account(bytes: number): void {
        bufferedBytes += bytes - ownBufferedBytes;
        ownBufferedBytes = bytes;
      }

      /** Answers what is there until the peer must read first. */
      function answerAll(): void {
        for (let frame = frames.next(); frame !== undefined; frame = isHeld ? undefined : frames.next()) {
          served.lastMessageAtMs = deps.now();
          const reply = deps.answer(sender, frame);
          if (reply === undefined || stream.send(reply)) continue;
          isHeld = true;
          if (stream.readStatus === "readable") stream.pause();
        }
        account(frames.bufferedBytes);
        if (bufferedBytes > maxBufferedBytes && ownBufferedBytes > 0) {
          throw new SwarmError({ code: "SWARM_MESSAGE_INVALID", message: "too many unfinished messages" });
        }
      }

      function finish(): void {
        stream.close().catch((err: unknown) => stream.abort(err as Error));
      }

      function guarded(step: () => void): void {
        try {
          step();
        } catch (err) {
          deps.logger.debug("peer lost its stream", { peer: connection.remotePeer.toString(), err });
          stream.abort(err as Error);
        }
      }

      stream.addEventListener("message", ({ data }) =>
        guarded(() => {
          frames.push(data.subarray());
          answerAll();
        }),
      );
      stream.addEventListener("drain", () =>
        guarded(() => {
          if (!isHeld) return;
          isHeld = false;
          answerAll();
          if (!isHeld && stream.readStatus === "paused") stream.resume();
          if (!isHeld && isEnded) finish();
        }),
      );
      stream.addEventListener("remoteCloseWrite", () => {
        isEnded = true;
        if (!isHeld) finish();
      });
      stream.addEventListener("close", () => {
        account(0);
        open.delete(served);
      });
      if (stream.status !== "open") open.delete(served);
    },
    [Symbol.dispose]() {
      clearInterval(sweeper);
      for (const { stream } of open)
        stream.abort(new SwarmError({ code: "SWARM_CLOSED", message: "the router stopped" }));
    },
  };
}
