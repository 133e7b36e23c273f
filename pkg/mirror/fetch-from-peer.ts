// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { sleep } from "#async";
import { type ByteRange, formatRange, parseContentRange, type RangeRequest } from "#http";
import {
  type Digest,
  digestAlgorithm,
  digestHex,
  isDigest,
  isManifestMediaType,
  MANIFEST_MEDIA_TYPES,
  MEDIA_TYPE_OCTET_STREAM,
} from "#oci";
import type { Peer } from "#routing";
import { type PeerPool, type PeerResponse, requestPeer } from "#transfer";
import { MirrorError } from "./errors.ts";
import { MIRRORED_HEADER, type Pull } from "./parse-pull.ts";

/**
 * Content up to this size is read whole and hashed before its first byte goes on: a wrong byte then costs
 * another peer instead of a failed pull.
 */
const VERIFIED_WHOLE_BYTES = 1024 * 1024;
// Between two addresses of one peer (IPv6 first), as Spegel's happy eyeballs.
const NEXT_ADDRESS_MS = 15;

/** A peer that has answered with content. Either `body` is there, verified, or `response` is still to be relayed. */
export interface Fetched {
  readonly peer: Peer;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** The part of the content that the body is; absent for the whole. */
  readonly range?: ByteRange;
  readonly body?: Buffer;
  readonly response: PeerResponse;
}

export interface PeerRequestOptions {
  /** Every node's registry listens on the same port. */
  readonly registryPort: number;
  /** `Basic ...`, when the nodes protect their registries. */
  readonly authorization?: string;
  /** Idle connections; manifests and HEADs are many and small. */
  readonly pool: PeerPool;
  readonly signal: AbortSignal;
}

/**
 * Asks one peer for the content of a pull, and checks that its answer can be used.
 *
 * @throws MirrorError PEER_STATUS, PEER_HEAD_INVALID, PEER_DIGEST_MISMATCH; TransferError
 */
export async function fetchFromPeer(
  peer: Peer,
  pull: Pull,
  range: RangeRequest | ByteRange | undefined,
  options: PeerRequestOptions,
): Promise<Fetched> {
  const response = await raceAddresses(peer, requestOf(pull, range, options), options);
  try {
    const described = describeContent(pull, range, response);
    // A part cannot be verified by itself: it is relayed, and resumed when it breaks.
    const isWhole = pull.method === "GET" && described.range === undefined;
    const body =
      isWhole && described.sizeBytes <= VERIFIED_WHOLE_BYTES
        ? await response.readAll({ limitBytes: VERIFIED_WHOLE_BYTES, signal: options.signal })
        : undefined;
    if (body !== undefined) verify(body, described.digest);
    return { peer, ...described, response, ...(body === undefined ? {} : { body }) };
  } catch (error) {
    await response[Symbol.asyncDispose]();
    throw error;
  }
}

function requestOf(
  pull: Pull,
  range: RangeRequest | ByteRange | undefined,
  options: PeerRequestOptions,
): Omit<Parameters<typeof requestPeer>[0], "host" | "port"> {
  const section = pull.kind === "manifest" ? "manifests" : "blobs";
  return {
    method: pull.method,
    path: `/v2/${pull.repository}/${section}/${pull.digest ?? pull.tag}?ns=${encodeURIComponent(pull.registry)}`,
    headers: {
      [MIRRORED_HEADER]: "true",
      "user-agent": "spegel",
      accept: MANIFEST_MEDIA_TYPES.join(", "),
      ...(range === undefined ? {} : { range: rangeHeader(range) }),
      ...(options.authorization === undefined ? {} : { authorization: options.authorization }),
    },
  };
}

function rangeHeader(range: RangeRequest | ByteRange): string {
  if (!("kind" in range)) return formatRange(range);
  if (range.kind === "suffix") return `bytes=-${range.lengthBytes}`;
  return range.end === undefined
    ? `bytes=${range.start}-`
    : formatRange({ start: range.start, end: range.end });
}

/** Tries the peer's addresses, IPv6 first, each a little after the one before; the first that answers wins. */
async function raceAddresses(
  peer: Peer,
  request: Omit<Parameters<typeof requestPeer>[0], "host" | "port">,
  options: PeerRequestOptions,
): Promise<PeerResponse> {
  const hosts = [...peer.addresses].sort((a, b) => Number(b.includes(":")) - Number(a.includes(":")));
  const [only] = hosts;
  if (only === undefined) throw headInvalid(peer, "has no address");
  const ask = (host: string, signal: AbortSignal): Promise<PeerResponse> =>
    requestPeer({ ...request, host, port: options.registryPort }, { signal, pool: options.pool });
  if (hosts.length === 1) return ask(only, options.signal);

  const attempts = hosts.map(() => new AbortController());
  const results = attempts.map(async (attempt, index) => {
    const signal = AbortSignal.any([options.signal, attempt.signal]);
    await sleep(index * NEXT_ADDRESS_MS, { signal });
    return { index, response: await ask(hosts[index] as string, signal) };
  });
  const winner = await Promise.any(results);
  for (const [index, attempt] of attempts.entries()) if (index !== winner.index) attempt.abort();
  for (const result of results) {
    result
      .then(({ index, response }) => (index === winner.index ? undefined : response[Symbol.asyncDispose]()))
      .catch(() => {});
  }
  return winner.response;
}

/** What the peer's head says about the content, held against what was asked for. */
function describeContent(
  pull: Pull,
  range: RangeRequest | ByteRange | undefined,
  response: PeerResponse,
): Pick<Fetched, "digest" | "mediaType" | "sizeBytes" | "range"> {
  const expected = range === undefined ? 200 : 206;
  if (response.status !== expected) {
    throw new MirrorError({
      code: "PEER_STATUS",
      message: `peer answered ${response.status} instead of ${expected}`,
    });
  }
  const announced = response.headers.get("docker-content-digest");
  const digest = announced ?? pull.digest;
  if (digest === undefined || !isDigest(digest)) throw headInvalid(undefined, "gave no digest");
  if (pull.digest !== undefined && digest !== pull.digest)
    throw headInvalid(undefined, `gave digest ${digest}`);

  const mediaType =
    response.headers.get("content-type") ?? (pull.kind === "blob" ? MEDIA_TYPE_OCTET_STREAM : "");
  if (pull.kind === "manifest" && !isManifestMediaType(mediaType))
    throw headInvalid(undefined, `gave type "${mediaType}"`);
  const { contentLength } = response;
  if (contentLength === undefined) throw headInvalid(undefined, "gave no Content-Length");
  if (range === undefined) return { digest, mediaType, sizeBytes: contentLength };

  const part = parseContentRange(response.headers.get("content-range") ?? "");
  if (part === undefined || part.end - part.start + 1 !== contentLength || !isPartOf(range, part)) {
    throw headInvalid(undefined, "gave another range than asked for");
  }
  return { digest, mediaType, sizeBytes: part.sizeBytes, range: { start: part.start, end: part.end } };
}

function isPartOf(
  range: RangeRequest | ByteRange,
  part: ByteRange & { readonly sizeBytes: number },
): boolean {
  const last = part.sizeBytes - 1;
  if ("kind" in range && range.kind === "suffix") {
    return part.end === last && part.start === Math.max(0, part.sizeBytes - range.lengthBytes);
  }
  return part.start === range.start && part.end === Math.min(range.end ?? last, last);
}

function verify(body: Buffer, digest: Digest): void {
  const hash = createHash(digestAlgorithm(digest)).update(body).digest("hex");
  if (hash === digestHex(digest)) return;
  throw new MirrorError({ code: "PEER_DIGEST_MISMATCH", message: `peer sent bytes that are not ${digest}` });
}

function headInvalid(peer: Peer | undefined, reason: string): MirrorError {
  return new MirrorError({
    code: "PEER_HEAD_INVALID",
    message: `peer ${peer?.id ?? ""} ${reason}`.replace("  ", " "),
  });
}
