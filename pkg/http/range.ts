// SPDX-License-Identifier: Apache-2.0

/** A `Range` header as asked for, before the size of the content is known. */
export type RangeRequest =
  | { readonly kind: "from"; readonly start: number; readonly end?: number }
  | { readonly kind: "suffix"; readonly lengthBytes: number };

/** Absolute bytes, both ends inclusive; `0 <= start <= end < sizeBytes`. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

// More digits cannot be told apart by a double and cannot be an offset of any file.
const RANGE = /^bytes=\s*(?:([0-9]{1,15})-([0-9]{1,15})?|-([0-9]{1,15}))\s*$/;

/**
 * Parses a `Range` header (RFC 9110 §14.2) the way Spegel does: exactly one range, unit `bytes`, forms `a-b`,
 * `a-`, `-n`.
 *
 * @returns undefined when it is anything else; the answer is then 404, as at a Go peer
 */
export function parseRange(header: string): RangeRequest | undefined {
  const match = RANGE.exec(header);
  if (match === null) return undefined;
  const [, from, to, suffix] = match;
  if (suffix !== undefined) {
    const lengthBytes = Number(suffix);
    return lengthBytes === 0 ? undefined : { kind: "suffix", lengthBytes };
  }
  const start = Number(from);
  if (to === undefined) return { kind: "from", start };
  const end = Number(to);
  return start > end ? undefined : { kind: "from", start, end };
}

/** The bytes a range means in content of this size, or undefined when it cannot be satisfied (start beyond the end, empty content). */
export function resolveRange(range: RangeRequest, sizeBytes: number): ByteRange | undefined {
  if (sizeBytes <= 0) return undefined;
  if (range.kind === "suffix")
    return { start: Math.max(0, sizeBytes - range.lengthBytes), end: sizeBytes - 1 };
  if (range.start >= sizeBytes) return undefined;
  return { start: range.start, end: Math.min(range.end ?? sizeBytes - 1, sizeBytes - 1) };
}

/** `bytes=a-b`, for a request. */
export function formatRange(range: ByteRange): string {
  return `bytes=${range.start}-${range.end}`;
}

/** `bytes a-b/size`, for a response. */
export function formatContentRange(range: ByteRange, sizeBytes: number): string {
  return `bytes ${range.start}-${range.end}/${sizeBytes}`;
}

/** Parses a `Content-Range` of a 206 response; undefined when malformed or of unknown size. */
export function parseContentRange(header: string): (ByteRange & { readonly sizeBytes: number }) | undefined {
  const match = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15})$/.exec(header);
  if (match === null) return undefined;
  const [start, end, sizeBytes] = [Number(match[1]), Number(match[2]), Number(match[3])];
  return start <= end && end < sizeBytes ? { start, end, sizeBytes } : undefined;
}
