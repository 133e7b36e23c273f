// SPDX-License-Identifier: Apache-2.0
/**
 * Two savings in libp2p's connections that change nothing on the wire's meaning. Stock, one question and its answer cost
 * eight writes to sockets: each frame goes out in two (its length, then the rest), and each received frame is thanked
 * for with a window update of its own. Here they cost two.
 */
import type { Socket } from "node:net";
import type { ConnectionEncrypter, StreamMuxer, StreamMuxerFactory } from "@libp2p/interface";

/** The part of a TCP connection of libp2p that is used here. */
interface SocketConnection {
  readonly socket?: Socket;
  sendData(data: unknown): unknown;
}

/** The part of a yamux stream that is used here. */
interface WindowedStream {
  readonly state: number;
  readonly recvWindow: number;
  readonly recvWindowCapacity: number;
  sendWindowUpdate(): void;
}

interface WindowedMuxer {
  _newStream?(...args: readonly unknown[]): WindowedStream;
}

/** yamux' states of a stream that is not established yet: there the update opens or acknowledges it. */
const OPENING: ReadonlySet<number> = new Set([0, 2]);

/** Makes one write of a frame and its length. The encrypter is where connections pass by. */
export function joinWrites<Components>(
  create: (components: Components) => ConnectionEncrypter,
): (components: Components) => ConnectionEncrypter {
  return (components) => {
    const encrypter = create(components);
    const { secureInbound, secureOutbound } = encrypter;
    encrypter.secureInbound = (connection, options) =>
      secureInbound.call(encrypter, joined(connection), options);
    encrypter.secureOutbound = (connection, options) =>
      secureOutbound.call(encrypter, joined(connection), options);
    return encrypter;
  };
}

function joined<T extends object>(stream: T): T {
  const connection = stream as T & SocketConnection;
  if (connection.socket === undefined) return stream;
  const sendData = connection.sendData.bind(connection);
  connection.sendData = (data) => {
    const { socket } = connection; // with TLS it is another one after the handshake
    socket?.cork();
    try {
      return sendData(data);
    } finally {
      socket?.uncork();
    }
  };
  return stream;
}

/** Gives a stream's window back when half of it is used, as Go's yamux does, and not after every frame. */
export function sparseWindowUpdates<Components>(
  create: (components: Components) => StreamMuxerFactory,
): (components: Components) => StreamMuxerFactory {
  return (components) => {
    const factory = create(components);
    const { createStreamMuxer } = factory;
    factory.createStreamMuxer = (connection) => sparse(createStreamMuxer.call(factory, connection));
    return factory;
  };
}

function sparse(muxer: StreamMuxer): StreamMuxer {
  const windowed = muxer as StreamMuxer & WindowedMuxer;
  const newStream = windowed._newStream?.bind(muxer);
  if (newStream === undefined) return muxer;
  windowed._newStream = (...args) => {
    const stream = newStream(...args);
    const sendWindowUpdate = stream.sendWindowUpdate.bind(stream);
    stream.sendWindowUpdate = () => {
      const isHalfUsed = stream.recvWindowCapacity <= stream.recvWindow / 2;
      if (isHalfUsed || OPENING.has(stream.state)) sendWindowUpdate();
    };
    return stream;
  };
  return muxer;
}
