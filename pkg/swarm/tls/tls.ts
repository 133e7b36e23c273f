// SPDX-License-Identifier: Apache-2.0
import { constants } from "node:crypto";
import { createSecureContext, type SecureContext, type TLSSocket } from "node:tls";
import type {
  ConnectionEncrypter,
  MessageStream,
  PrivateKey,
  SecureConnectionOptions,
  SecuredConnection,
  StreamMuxerFactory,
  Upgrader,
} from "@libp2p/interface";
import { SwarmError } from "../errors.ts";
import { createOwnCertificate } from "./own-certificate.ts";
import { identifyPeer } from "./peer-certificate.ts";
import { resumeOver, startTls } from "./tls-socket.ts";

const PROTOCOL = "/tls/1.0.0";
/** The application protocol of peers that agree on a muxer after the handshake. */
const LATER_MUXER = "libp2p";

export interface TlsComponents {
  readonly privateKey: PrivateKey;
  readonly upgrader: Pick<Upgrader, "getStreamMuxers" | "getConnectionEncrypters">;
}

export interface TlsOptions {
  /** While so many are open TLS is not offered: whoever has another protocol too goes on with that. */
  readonly maxConnections: number;
}

/** libp2p's TLS 1.3 handshake. The certificate is made with the first connection that needs it, and kept. */
export function tls({ maxConnections }: TlsOptions): (components: TlsComponents) => ConnectionEncrypter {
  return (components) => {
    let context: Promise<SecureContext> | undefined;
    let connections = 0;
    function count(socket: TLSSocket): void {
      const offered = components.upgrader.getConnectionEncrypters();
      if (++connections >= maxConnections) offered.delete(PROTOCOL);
      socket.once("close", () => {
        if (--connections < maxConnections) offered.set(PROTOCOL, encrypter);
      });
    }
    const secure = async (
      stream: MessageStream,
      side: "server" | "client",
      options: SecureConnectionOptions = {},
    ): Promise<SecuredConnection> => {
      context ??= createContext(components.privateKey);
      const muxers: Map<string, StreamMuxerFactory> =
        options.skipStreamMuxerNegotiation === true ? new Map() : components.upgrader.getStreamMuxers(); // not there before now
      const { signal, remotePeer: expected } = options;
      try {
        const socket = await startTls(stream, {
          side,
          context: await context,
          applicationProtocols: [...muxers.keys(), LATER_MUXER],
          signal,
        });
        const agreed = socket.alpnProtocol || "";
        const streamMuxer = muxers.get(agreed);
        if (streamMuxer === undefined && agreed !== LATER_MUXER)
          throw refused("no application protocol was agreed on");
        if (socket.isSessionReused()) throw refused("an earlier session was taken up");
        const certificate = socket.getPeerX509Certificate();
        const remotePeer = await identifyPeer(certificate, { expected, nowMs: Date.now() });
        if (socket.destroyed) throw refused("the peer closed the connection");
        count(socket);
        resumeOver(stream, socket);
        return { connection: stream, remotePeer, ...(streamMuxer && { streamMuxer }) };
      } catch (err) {
        stream.abort(err as Error);
        throw err;
      }
    };
    const encrypter: ConnectionEncrypter = {
      protocol: PROTOCOL,
      secureInbound: (stream, options) => secure(stream, "server", options),
      secureOutbound: (stream, options) => secure(stream, "client", options),
    };
    return encrypter;
  };
}

async function createContext(privateKey: PrivateKey): Promise<SecureContext> {
  const { certificate, key } = await createOwnCertificate(privateKey);
  return createSecureContext({
    cert: certificate,
    key,
    minVersion: "TLSv1.3",
    // None, or Node would load those of the public web.
    ca: [],
    secureOptions: constants.SSL_OP_NO_TICKET,
  });
}

function refused(message: string): SwarmError {
  return new SwarmError({ code: "SWARM_HANDSHAKE_FAILED", message: `TLS handshake: ${message}` });
}
