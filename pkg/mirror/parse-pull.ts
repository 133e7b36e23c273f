// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage } from "node:http";
import { parseRange, type RangeRequest } from "#http";
import { type DistributionRequest, parseDistributionPath } from "#oci";

/** The header that marks a request of another node; such a request is answered from local content only. */
export const MIRRORED_HEADER = "x-spegel-mirrored";

/** One pull, as asked for. */
export type Pull = DistributionRequest & {
  readonly method: "GET" | "HEAD";
  /** Only for blobs; manifests ignore ranges. */
  readonly range?: RangeRequest;
  /** True when another node asks; the answer never comes from a third one. */
  readonly mirrored: boolean;
};

/**
 * Reads a pull from an HTTP request (OCI distribution specification, "Pull").
 *
 * @returns undefined when it is none: unknown path, no or malformed `ns`, malformed digest, tag or range
 */
export function parsePull(request: Pick<IncomingMessage, "method" | "url" | "headers">): Pull | undefined {
  if (request.method !== "GET" && request.method !== "HEAD") return undefined;
  const url = request.url ?? "";
  const question = url.indexOf("?");
  const path = decodePath(question < 0 ? url : url.slice(0, question));
  if (path === undefined) return undefined;
  const namespace = question < 0 ? undefined : new URLSearchParams(url.slice(question + 1)).get("ns");
  const target = parseDistributionPath(path, namespace ?? undefined);
  if (target === undefined) return undefined;

  const header = target.kind === "blob" ? request.headers.range : undefined;
  const range = header === undefined ? undefined : parseRange(header);
  if (header !== undefined && range === undefined) return undefined;
  return {
    ...target,
    method: request.method,
    mirrored: request.headers[MIRRORED_HEADER] === "true",
    ...(range === undefined ? {} : { range }),
  };
}

function decodePath(path: string): string | undefined {
  if (!path.includes("%")) return path;
  try {
    return decodeURIComponent(path);
  } catch {
    return undefined;
  }
}
