// SPDX-License-Identifier: Apache-2.0
import type { StreamMuxer, StreamMuxerFactory } from "@libp2p/interface";
import { SwarmError } from "./errors.ts";

export interface LivenessOptions {
  /** A connection that nothing came over for one to two of these intervals is asked for a sign of life. */
  readonly intervalMs: number;
  /** Without any for this long it is ended. Short limits make a busy swarm fall apart. */
  readonly timeoutMs: number;
}

/** The part of yamux that is used here. */
interface PingingMuxer {
  onData?(data: unknown): void;
  ping?(options: { readonly signal: AbortSignal }): Promise<number>;
}

/**
 * Ends connections whose other side is gone without a word. The question is a ping of yamux, 12 bytes each way, which
 * Go's yamux answers as well; libp2p's own monitor opens a stream for each. And whoever asks is heard: of two nodes only
 * one asks at a time, and nobody while there is other traffic.
 */
export function watchLiveness<Components>(
  create: (components: Components) => StreamMuxerFactory,
  options: LivenessOptions,
): (components: Components) => StreamMuxerFactory {
  return (components) => {
    const factory = create(components);
    const { createStreamMuxer } = factory;
    factory.createStreamMuxer = (connection) => {
      const muxer = createStreamMuxer.call(factory, connection);
      watch(muxer, (error) => connection.abort(error), options);
      return muxer;
    };
    return factory;
  };
}

function watch(
  muxer: StreamMuxer,
  endConnection: (error: Error) => void,
  { intervalMs, timeoutMs }: LivenessOptions,
): void {
  const pinging = muxer as StreamMuxer & PingingMuxer;
  const onData = pinging.onData?.bind(muxer);
  const ping = pinging.ping?.bind(muxer);
  if (onData === undefined || ping === undefined) return;
  let isHeard = true;
  let isAsking = false;
  pinging.onData = (data) => {
    isHeard = true;
    onData(data);
  };

  async function ask(): Promise<void> {
    isAsking = true;
    try {
      await (ping as NonNullable<typeof ping>)({ signal: AbortSignal.timeout(timeoutMs) });
    } catch (cause) {
      if (muxer.status !== "open" || isHeard) return;
      const error = new SwarmError({ code: "SWARM_PEER_UNREACHABLE", message: "no sign of life", cause });
      muxer.abort(error);
      endConnection(error);
    } finally {
      isAsking = false;
    }
  }

  const tick = (): void => {
    if (muxer.status !== "open") return clearInterval(timer);
    if (!isHeard && !isAsking) void ask();
    isHeard = false;
  };
  // Both sides begin at the same instant; they shall not go on in step.
  const timer = setInterval(tick, intervalMs * (0.8 + 0.4 * Math.random()));
  timer.unref();
}
