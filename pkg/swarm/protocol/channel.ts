// SPDX-License-Identifier: Apache-2.0
import type { Stream } from "@libp2p/interface";
import type { Contact } from "../contact.ts";
import { SwarmError } from "../errors.ts";
import type { PeerClient } from "../ports.ts";
import { createFrameReader } from "./frame.ts";

export interface ChannelPool extends PeerClient, Disposable {
  /** A channel of its own for a long transfer, which look-ups need not wait behind. */
  dedicated(contact: Contact): Channel;
  readonly openChannels: number;
}

/** One stream to one node, opened on demand and kept open: a question costs one round trip, no negotiation. */
export interface Channel extends Disposable {
  request(frames: Uint8Array, options: { readonly signal: AbortSignal }): Promise<Uint8Array>;
}

export interface ChannelOptions {
  /** How long one answer may take, dialling included. Default 2 s. */
  readonly requestTimeoutMs?: number;
  /** A channel without a request for this long is closed; below the minute after which Go peers do it. Default 45 s. */
  readonly idleTimeoutMs?: number;
  /** Unanswered requests on one channel. Default 256. */
  readonly maxPending?: number;
  /** Channels kept open, the one longest unused makes room. Default 256. */
  readonly maxChannels?: number;
}

const REQUEST_TIMEOUT_MS = 2_000;
const IDLE_TIMEOUT_MS = 45_000;
const MAX_PENDING = 256;
const MAX_CHANNELS = 256;
/** The longest answer that is read: 20 closer nodes and some thousand providers. */
const MAX_ANSWER_BYTES = 1024 * 1024;
/** One for all: an error takes a look at the stack, and channels are closed by the hundred. */
const NO_LONGER_USED = new SwarmError({ code: "SWARM_CLOSED", message: "channel was closed" });

type OpenStream = (contact: Contact, options: { readonly signal: AbortSignal }) => Promise<Stream>;

export function createChannelPool(
  deps: { readonly openStream: OpenStream; readonly now: () => number },
  options: ChannelOptions = {},
): ChannelPool {
  const maxChannels = options.maxChannels ?? MAX_CHANNELS;
  const idleTimeoutMs = options.idleTimeoutMs ?? IDLE_TIMEOUT_MS;
  /** In the order of last use. */
  const channels = new Map<string, { readonly channel: Channel; lastUseAtMs: number }>();

  const sweeper = setInterval(
    () => {
      const limit = deps.now() - idleTimeoutMs;
      for (const [id, { channel, lastUseAtMs }] of channels) {
        if (lastUseAtMs >= limit) break;
        channel[Symbol.dispose]();
        channels.delete(id);
      }
    },
    Math.max(idleTimeoutMs / 6, 1),
  );
  sweeper.unref();

  function channelTo(contact: Contact): Channel {
    const entry = channels.get(contact.id) ?? {
      channel: createChannel(deps.openStream, contact, options),
      lastUseAtMs: 0,
    };
    entry.lastUseAtMs = deps.now();
    channels.delete(contact.id);
    channels.set(contact.id, entry);
    if (channels.size > maxChannels) {
      const [oldestId, oldest] = channels.entries().next().value as [string, { readonly channel: Channel }];
      oldest.channel[Symbol.dispose]();
      channels.delete(oldestId);
    }
    return entry.channel;
  }

  return {
    get openChannels() {
      return channels.size;
    },
    request: (contact, frames, requestOptions) => channelTo(contact).request(frames, requestOptions),
    dedicated: (contact) => createChannel(deps.openStream, contact, options),
    [Symbol.dispose]() {
      clearInterval(sweeper);
      for (const { channel } of channels.values()) channel[Symbol.dispose]();
      channels.clear();
    },
  };
}

interface PendingRequest {
  resolve(answer: Uint8Array): void;
  reject(error: Error): void;
}

function createChannel(openStream: OpenStream, contact: Contact, options: ChannelOptions): Channel {
  const requestTimeoutMs = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
  const maxPending = options.maxPending ?? MAX_PENDING;
  /** Answers come in the order of the requests. */
  const pending: PendingRequest[] = [];
  let stream: Stream | undefined;
  let opening: Promise<Stream> | undefined;
  let disposed = false;

  const unreachable = (message: string, cause?: unknown): SwarmError =>
    new SwarmError({
      code: "SWARM_PEER_UNREACHABLE",
      message: `${contact.peerId.toString()}: ${message}`,
      cause,
    });

  function failPending(of: Stream, message: string): void {
    if (stream !== of) return;
    stream = undefined;
    if (pending.length === 0) return;
    const error = unreachable(message);
    for (const request of pending.splice(0)) request.reject(error);
  }

  async function open(): Promise<Stream> {
    const opened = await openStream(contact, { signal: AbortSignal.timeout(requestTimeoutMs) });
    if (disposed) {
      opened.abort(unreachable("channel was closed"));
      throw unreachable("channel was closed");
    }
    const frames = createFrameReader({ maxFrameBytes: MAX_ANSWER_BYTES });
    stream = opened;
    opened.addEventListener("message", ({ data }) => {
      try {
        frames.push(data.subarray());
        for (let frame = frames.next(); frame !== undefined; frame = frames.next()) {
          const request = pending.shift();
          if (request === undefined) throw unreachable("answered without a question");
          request.resolve(frame);
        }
      } catch (err) {
        opened.abort(err as Error);
      }
    });
    opened.addEventListener("remoteCloseWrite", () => {
      failPending(opened, "ended the stream");
      opened.close().catch((err: unknown) => opened.abort(err as Error));
    });
    opened.addEventListener("close", () => failPending(opened, "closed the stream"));
    return opened;
  }

  function currentStream(): Promise<Stream> {
    if (stream?.status === "open") return Promise.resolve(stream);
    opening ??= open().finally(() => {
      opening = undefined;
    });
    return opening;
  }

  async function requestOnce(frames: Uint8Array): Promise<Uint8Array> {
    const on = await currentStream();
    if (pending.length >= maxPending) throw unreachable("too many unanswered requests");
    const answer = Promise.withResolvers<Uint8Array>();
    answer.promise.catch(() => {}); // when sending fails nobody waits for it
    const timer = setTimeout(() => on.abort(unreachable("no answer in time")), requestTimeoutMs);
    pending.push(answer);
    try {
      on.send(frames);
      return await answer.promise;
    } catch (err) {
      if (pending.includes(answer)) on.abort(err as Error); // nothing was sent; later answers would be taken for this one's
      throw err;
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    async request(frames, { signal }) {
      signal.throwIfAborted();
      const keptOpen = stream;
      const startedAtMs = performance.now();
      try {
        return await requestOnce(frames);
      } catch (err) {
        // The other side may have closed a kept-open stream just now; a fresh one decides.
        const mayHaveBeenStale =
          keptOpen !== undefined && stream !== keptOpen && performance.now() - startedAtMs < requestTimeoutMs;
        if (!mayHaveBeenStale || disposed || signal.aborted) throw asUnreachable(err);
      }
      return requestOnce(frames).catch((err: unknown) => {
        throw asUnreachable(err);
      });
    },
    [Symbol.dispose]() {
      disposed = true;
      const closing = stream;
      if (closing === undefined) return;
      failPending(closing, "channel was closed");
      closing.abort(NO_LONGER_USED); // all that was asked is answered; nothing is lost with the stream
    },
  };

  function asUnreachable(err: unknown): SwarmError {
    return err instanceof SwarmError ? err : unreachable("cannot be reached", err);
  }
}
