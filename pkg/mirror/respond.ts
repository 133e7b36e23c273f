// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import { type ByteRange, formatContentRange } from "#http";
import {
  type Digest,
  type DistributionErrorCode,
  distributionErrorBody,
  MEDIA_TYPE_OCTET_STREAM,
} from "#oci";
import type { Pull } from "./parse-pull.ts";

/** An answer without a body: 404 for what is no pull, 400 for a range that cannot be satisfied, 500, 503. */
export function respondEmpty(response: ServerResponse, status: number): void {
  response.writeHead(status, { "content-length": 0 }).end();
}

/** A distribution error. HEAD gets the headers GET would have had, and no body. */
export function respondError(
  response: ServerResponse,
  status: number,
  error: {
    readonly code: DistributionErrorCode;
    readonly message: string;
    readonly detail?: Readonly<Record<string, unknown>>;
  },
): void {
  const body = Buffer.from(distributionErrorBody(error));
  response.writeHead(status, { "content-type": "application/json", "content-length": body.length }).end(body);
}

/** 404 for a manifest or blob nobody has. */
export function respondUnknown(
  response: ServerResponse,
  pull: Pull,
  message: string,
  detail?: Readonly<Record<string, unknown>>,
): void {
  respondError(response, 404, {
    code: pull.kind === "manifest" ? "MANIFEST_UNKNOWN" : "BLOB_UNKNOWN",
    message,
    ...(detail === undefined ? {} : { detail }),
  });
}

/** What the head of a content answer says. `sizeBytes` is that of the whole content. */
export interface ContentHead {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** Set when a range was asked for: the answer is 206. */
  readonly range?: ByteRange;
  /** The `ns` of the request; only local answers carry it. */
  readonly namespace?: string;
}

/** Writes the head of content (spegel on the wire: type, length, digest; blobs also accept ranges). */
export function writeContentHead(response: ServerResponse, pull: Pull, head: ContentHead): void {
  const headers: Record<string, string | number> = {
    "Content-Type": head.range === undefined ? head.mediaType : MEDIA_TYPE_OCTET_STREAM,
    "Content-Length": head.range === undefined ? head.sizeBytes : head.range.end - head.range.start + 1,
    "Docker-Content-Digest": head.digest,
  };
  if (head.namespace !== undefined) headers["OCI-Namespace"] = head.namespace;
  if (pull.kind === "blob") headers["Accept-Ranges"] = "bytes";
  if (head.range !== undefined) headers["Content-Range"] = formatContentRange(head.range, head.sizeBytes);
  response.writeHead(head.range === undefined ? 200 : 206, headers);
}
