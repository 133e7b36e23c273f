// SPDX-License-Identifier: Apache-2.0
import type { Connection, PeerId, Stream } from "@libp2p/interface";
import type { Logger } from "#log";
import { idOf } from "../contact.ts";
import { SwarmError } from "../errors.ts";
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

interface ServerDeps {
  readonly logger: Logger;
  readonly now: () => number;
  readonly answer: (sender: string, frame: Uint8Array) => Uint8Array | undefined;
}

/**
 * Cuts inbound streams into frames and writes the answers. A peer that does not read its answers is not read from
 * either; one that sends what is no message of the protocol loses its stream.
 */
export function createProtocolServer(deps: ServerDeps, options: ProtocolServerOptions = {}): ProtocolServer {
  const maxStreams = options.maxStreams ?? MAX_STREAMS;
  const idleTimeoutMs = options.idleTimeoutMs ?? IDLE_TIMEOUT_MS;
  const open = new Set<ServedStream>();
  const budget: Budget = {
    bufferedBytes: 0,
    maxBufferedBytes: options.maxBufferedBytes ?? MAX_BUFFERED_BYTES,
  };

  const sweeper = setInterval(
    () => {
      const limit = deps.now() - idleTimeoutMs;
      for (const served of open) if (served.lastMessageAtMs < limit) served.stream.abort(IDLE);
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
      const served = new ServedStream(deps, budget, stream, connection.remotePeer);
      open.add(served);
      stream.addEventListener("message", ({ data }) => served.receive(data.subarray()));
      stream.addEventListener("drain", () => served.goOn());
      stream.addEventListener("remoteCloseWrite", () => served.endOfInput());
      stream.addEventListener("close", () => {
        served.release();
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

/** One for all: an error takes a look at the stack, and streams become idle by the hundred. */
const IDLE = new SwarmError({ code: "SWARM_PEER_UNREACHABLE", message: "stream was idle" });

/** Bytes of unfinished frames, all streams together. */
interface Budget {
  bufferedBytes: number;
  readonly maxBufferedBytes: number;
}

/** A class, because there may be two thousand of them. */
class ServedStream {
  readonly stream: Stream;
  lastMessageAtMs: number;
  private readonly deps: ServerDeps;
  private readonly budget: Budget;
  private readonly peer: PeerId;
  private readonly sender: string;
  private readonly frames = createFrameReader();
  private ownBufferedBytes = 0;
  /** The peer must read answers before it gets more. */
  private isHeld = false;
  /** The peer has sent all that it will. */
  private isEnded = false;

  constructor(deps: ServerDeps, budget: Budget, stream: Stream, peer: PeerId) {
    this.deps = deps;
    this.budget = budget;
    this.stream = stream;
    this.peer = peer;
    this.sender = idOf(peer);
    this.lastMessageAtMs = deps.now();
  }

  receive(bytes: Uint8Array): void {
    this.guarded(() => {
      this.frames.push(bytes);
      this.answerAll();
    });
  }

  /** The peer has read its answers. */
  goOn(): void {
    if (!this.isHeld) return;
    this.guarded(() => {
      this.isHeld = false;
      this.answerAll();
      if (this.isHeld) return;
      if (this.stream.readStatus === "paused") this.stream.resume();
      if (this.isEnded) this.finish();
    });
  }

  endOfInput(): void {
    this.isEnded = true;
    if (!this.isHeld) this.finish();
  }

  /** What it buffers no longer counts. */
  release(): void {
    this.account(0);
  }

  /** Answers what is there until the peer must read first. */
  private answerAll(): void {
    const { frames, stream, deps, budget } = this;
    for (let frame = frames.next(); frame !== undefined; frame = this.isHeld ? undefined : frames.next()) {
      this.lastMessageAtMs = deps.now();
      const reply = deps.answer(this.sender, frame);
      if (reply === undefined || stream.send(reply)) continue;
      this.isHeld = true;
      if (stream.readStatus === "readable") stream.pause();
    }
    this.account(frames.bufferedBytes);
    if (budget.bufferedBytes > budget.maxBufferedBytes && this.ownBufferedBytes > 0) {
      throw new SwarmError({ code: "SWARM_MESSAGE_INVALID", message: "too many unfinished messages" });
    }
  }

  private account(bytes: number): void {
    this.budget.bufferedBytes += bytes - this.ownBufferedBytes;
    this.ownBufferedBytes = bytes;
  }

  private finish(): void {
    this.stream.close().catch((err: unknown) => this.stream.abort(err as Error));
  }

  private guarded(step: () => void): void {
    try {
      step();
    } catch (err) {
      this.deps.logger.debug("peer lost its stream", { peer: this.peer.toString(), err });
      this.stream.abort(err as Error);
    }
  }
}
