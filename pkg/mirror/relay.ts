// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import type { ByteRange } from "#http";
import { cutResponse, endResponse, type TransferEnd } from "#transfer";
import type { Fetched } from "./fetch-from-peer.ts";
import type { NobodyFound } from "./race-fetch.ts";

export interface RelayOptions {
  /** A peer that sends nothing for this long while we wait for it is replaced. */
  readonly stallTimeoutMs: number;
  /** A peer that delivers less, while we wait for it, is replaced when that has cost `stallTimeoutMs`. */
  leastBytesPerSecond(): number;
  /** How often one answer may change its source without having moved on by a byte in between. */
  readonly maxIdleResumes: number;
  /** How often one answer may change its source in all. */
  readonly maxResumes: number;
  readonly signal: AbortSignal;
}

export interface RelayPorts {
  /** Finds another source for the rest of the content; the lost one only when there is no other. */
  resume(rest: ByteRange, lost: Fetched): Promise<Fetched | NobodyFound>;
  /** A source that failed in the middle; `moved` when it had delivered something. */
  onSourceLost(fetched: Fetched, ended: TransferEnd, moved: boolean): void;
}

export interface Relayed {
  readonly bytes: number;
  readonly complete: boolean;
  readonly resumes: number;
  /** Ids of the peers that delivered, in order. */
  readonly peers: readonly string[];
}

/**
 * Sends the body of a pull from a peer; when that peer dies, stalls or ends early, the rest comes from another one
 * on the same response and the client does not notice.
 *
 * The head must have been written. When no source is left the connection is cut: containerd then asks for the
 * rest by range, gets 404 here, and takes exactly the missing bytes from upstream.
 */
export async function relay(
  response: ServerResponse,
  first: Fetched,
  ports: RelayPorts,
  options: RelayOptions,
): Promise<Relayed> {
  const whole = first.range ?? { start: 0, end: first.sizeBytes - 1 };
  const peers: string[] = [];
  let position = whole.start;
  let resumes = 0;
  let idleResumes = 0;
  let source = first;

  const finish = (complete: boolean): Relayed => {
    if (complete) endResponse(response);
    else cutResponse(response);
    return { bytes: position - whole.start, complete, resumes, peers };
  };

  for (;;) {
    const outcome = await sendFrom(source, response, whole.end - position + 1, options);
    await source.response[Symbol.asyncDispose]();
    position += outcome.bytes;
    if (outcome.bytes > 0) peers.push(source.peer.id);
    if (outcome.ended === "complete") return finish(true);
    if (outcome.ended === "client-gone" || outcome.ended === "aborted") return finish(false);

    const moved = outcome.bytes > 0;
    ports.onSourceLost(source, outcome.ended, moved);
    idleResumes = moved ? 0 : idleResumes + 1;
    resumes++;
    if (idleResumes > options.maxIdleResumes || resumes > options.maxResumes) return finish(false);

    const next = await ports.resume({ start: position, end: whole.end }, source);
    if (!("response" in next)) return finish(false);
    source = next;
    if (next.sizeBytes !== first.sizeBytes || next.digest !== first.digest) {
      await next.response[Symbol.asyncDispose]();
      return finish(false);
    }
  }
}

async function sendFrom(
  source: Fetched,
  response: ServerResponse,
  lengthBytes: number,
  options: RelayOptions,
): Promise<{ readonly bytes: number; readonly ended: TransferEnd }> {
  if (source.body === undefined) {
    return source.response.relayTo(response, {
      lengthBytes,
      signal: options.signal,
      stallTimeoutMs: options.stallTimeoutMs,
      leastBytesPerSecond: options.leastBytesPerSecond,
    });
  }
  // Small and already here: one write, ended by the caller.
  if (response.destroyed) return { bytes: 0, ended: "client-gone" };
  response.write(source.body);
  return { bytes: source.body.length, ended: "complete" };
}
