// SPDX-License-Identifier: Apache-2.0
import { TransferError, type TransferErrorCode } from "./errors.ts";

/** Longest response head, status line and all fields, as bytes. */
export const HEAD_LIMIT_BYTES = 16 * 1024;

export interface ResponseHead {
  readonly status: number;
  /** Lower-case names; fields of the same name are joined by ", ". */
  readonly headers: ReadonlyMap<string, string>;
  /** Bytes the body will have; undefined when it lasts until the connection closes. */
  readonly contentLength: number | undefined;
  /** True when the connection may be used for another request after the body. */
  readonly keepAlive: boolean;
  /** Where the body starts in the bytes that were parsed. */
  readonly sizeBytes: number;
}

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?$/;
const FIELD_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/**
 * Parses the head of an HTTP/1.x response (RFC 9112 sections 4 and 5) from the first bytes of a connection.
 *
 * Stricter than the RFC asks: lines end with CRLF, no folded fields, one Content-Length, no transfer or content
 * coding. A peer that serves content has no reason to send anything else, and what is ambiguous is refused.
 *
 * @returns undefined while the head is not complete
 * @throws TransferError TRANSFER_HEAD_TOO_LARGE, _HEAD_INVALID, _LENGTH_INVALID, _CODING_UNSUPPORTED
 */
export function parseResponseHead(bytes: Buffer): ResponseHead | undefined {
  const end = bytes.indexOf("\r\n\r\n");
  if (end < 0 ? bytes.length >= HEAD_LIMIT_BYTES : end + 4 > HEAD_LIMIT_BYTES) {
    throw invalid("TRANSFER_HEAD_TOO_LARGE", `the response head is larger than ${HEAD_LIMIT_BYTES} bytes`);
  }
  if (end < 0) return undefined;
  const [statusLine = "", ...lines] = bytes.toString("latin1", 0, end).split("\r\n");
  const match = STATUS_LINE.exec(statusLine);
  if (match === null) throw invalid("TRANSFER_HEAD_INVALID", "the status line is not one of HTTP/1.x");
  const headers = parseFields(lines);
  refuseCodings(headers);
  return {
    status: Number(match[2]),
    headers,
    contentLength: parseLength(headers.get("content-length")),
    keepAlive: match[1] === "1" && !tokens(headers.get("connection")).includes("close"),
    sizeBytes: end + 4,
  };
}

function parseFields(lines: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(0, colon));
    const value = line.slice(colon + 1);
    if (!FIELD_NAME.test(name) || !FIELD_VALUE.test(value)) {
      throw invalid("TRANSFER_HEAD_INVALID", "a header field is malformed");
    }
    const key = name.toLowerCase();
    const previous = headers.get(key);
    headers.set(key, previous === undefined ? trimBlanks(value) : `${previous}, ${trimBlanks(value)}`);
  }
  return headers;
}

/** Only space and tab are blank in a field (`trim` would also take a no-break space), and a loop cannot backtrack. */
function trimBlanks(value: string): string {
  let start = 0;
  let end = value.length;
  while (start < end && isBlank(value.charCodeAt(start))) start++;
  while (end > start && isBlank(value.charCodeAt(end - 1))) end--;
  return value.slice(start, end);
}

function isBlank(character: number): boolean {
  return character === 0x20 || character === 0x09;
}

function parseLength(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const length = /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(length)) {
    throw invalid("TRANSFER_LENGTH_INVALID", "Content-Length is not one decimal number below 2^53");
  }
  return length;
}

function refuseCodings(headers: ReadonlyMap<string, string>): void {
  for (const name of ["transfer-encoding", "content-encoding"]) {
    if (tokens(headers.get(name)).some((coding) => coding !== "identity")) {
      throw invalid("TRANSFER_CODING_UNSUPPORTED", `the response has a ${name}`);
    }
  }
}

function tokens(value: string | undefined): string[] {
  if (value === undefined) return [];
  return value
    .toLowerCase()
    .split(",")
    .map((token) => trimBlanks(token));
}

function invalid(code: TransferErrorCode, message: string): TransferError {
  return new TransferError({ code, message });
}
