// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import { TransferError } from "./errors.ts";
import { hashBody } from "./hash-body.ts";
import type { TransferOutcome } from "./outcome.ts";
import type { HashAllOptions, PeerBody, ReadAllOptions, RelayOptions } from "./peer-body.ts";
import type { PeerConnection } from "./peer-connection.ts";
import { readBody } from "./read-body.ts";
import { relayBody } from "./relay-body.ts";
import type { ResponseHead } from "./response-head.ts";

/** The answer of a peer. Its body can be taken once; disposing keeps the connection if the body was read, else closes it. */
export interface PeerResponse extends AsyncDisposable {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: ReadonlyMap<string, string>;
  /** As the head says, also for HEAD; undefined when it does not. */
  readonly contentLength: number | undefined;
  /**
   * Reads a small body completely. Rejects with the signal's reason.
   *
   * @throws TransferError TRANSFER_BODY_TOO_LARGE, _BODY_INCOMPLETE, _BODY_SURPLUS, _BODY_TAKEN, TRANSFER_SOURCE_STALLED
   */
  readAll(options: ReadAllOptions): Promise<Buffer>;
  /**
   * Reads the body through a hash and keeps none of it; the hash in hex. Rejects with the signal's reason.
   *
   * @throws TransferError TRANSFER_BODY_INCOMPLETE, _BODY_SURPLUS, _BODY_TAKEN, TRANSFER_SOURCE_STALLED
   */
  hashAll(options: HashAllOptions): Promise<string>;
  /**
   * Relays exactly `lengthBytes` bytes of the body to the client, never more; what could not be relayed is told by
   * the outcome. It sends the head that `response.writeHead` was given, if that was not sent yet, and does not end
   * the response: on anything but `complete` the rest may come from another peer, or the caller cuts the response.
   *
   * @throws TransferError TRANSFER_BODY_TAKEN
   */
  relayTo(response: ServerResponse, options: RelayOptions): Promise<TransferOutcome>;
}

export interface PeerResponseParts {
  readonly connection: PeerConnection;
  readonly head: ResponseHead;
  readonly early: Buffer;
  readonly method: "GET" | "HEAD";
  /** Leaves the connection for the next request. */
  keep(idleTimeoutMs: number): void;
}

export function createPeerResponse(parts: PeerResponseParts): PeerResponse {
  const { head, connection } = parts;
  const body = openBody(parts);
  let taken = false;
  let disposed = false;

  function take(): PeerBody {
    if (taken || disposed)
      throw new TransferError({ code: "TRANSFER_BODY_TAKEN", message: "the body was taken before" });
    taken = true;
    return body;
  }

  return {
    status: head.status,
    headers: head.headers,
    contentLength: head.contentLength,
    readAll: async (options) => readBody(take(), options),
    hashAll: async (options) => hashBody(take(), options),
    relayTo: async (response, options) => relayBody(take(), response, options),
    async [Symbol.asyncDispose]() {
      if (disposed) return;
      disposed = true;
      const drained = body.sound && body.unread === 0;
      if (drained && head.keepAlive && connection.alive) parts.keep(announcedIdleMs(head.headers));
      else connection.close();
    },
  };
}

function openBody({ connection, head, early, method }: PeerResponseParts): PeerBody {
  const bodyless = method === "HEAD" || head.status === 204 || head.status === 304;
  const length = bodyless ? 0 : (head.contentLength ?? Number.POSITIVE_INFINITY);
  return {
    connection,
    early: early.subarray(0, length),
    unread: Math.max(0, length - early.length),
    sound: early.length <= length,
  };
}

/** `Keep-Alive: timeout=n` less one second, so that we close before the peer does. */
function announcedIdleMs(headers: ReadonlyMap<string, string>): number {
  const seconds = /(?:^|[,; ])timeout=([0-9]{1,6})(?:$|[,; ])/i.exec(headers.get("keep-alive") ?? "")?.[1];
  return seconds === undefined ? Number.POSITIVE_INFINITY : (Number(seconds) - 1) * 1000;
}
