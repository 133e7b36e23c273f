// SPDX-License-Identifier: Apache-2.0
import { SwarmError } from "../errors.ts";

/** Tags of X.690 that certificates use. */
export const Tag = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  OBJECT_ID: 0x06,
  PRINTABLE_STRING: 0x13,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  SEQUENCE: 0x30,
  SET: 0x31,
  EXPLICIT_0: 0xa0,
  EXPLICIT_3: 0xa3,
} as const;

/** One value in DER; both parts are views of the bytes it was read from. */
export interface DerValue {
  readonly tag: number;
  readonly content: Uint8Array;
  /** Tag, length and content. */
  readonly encoded: Uint8Array;
}

/** A length of 2 bytes is the longest that is read: a certificate has a few hundred bytes. */
const MAX_LENGTH_BYTES = 2;

/**
 * Reads the values that fill `bytes`, one after the other, without looking into them.
 *
 * @throws SwarmError SWARM_CERTIFICATE_INVALID for anything that is no DER: values cut short or longer than what is
 * there, lengths that are indefinite or not in their shortest form, tags of several bytes
 */
export function readDerValues(bytes: Uint8Array): DerValue[] {
  const values: DerValue[] = [];
  for (let at = 0; at < bytes.length; ) {
    const value = readAt(bytes, at);
    values.push(value);
    at += value.encoded.length;
  }
  return values;
}

/**
 * Reads what is inside the one value with this tag that fills `bytes`.
 *
 * @throws SwarmError SWARM_CERTIFICATE_INVALID when it is no DER, has another tag, or is followed by more
 */
export function readDerInside(bytes: Uint8Array, tag: number): DerValue[] {
  const [value, ...more] = readDerValues(bytes);
  if (value === undefined || value.tag !== tag || more.length > 0)
    throw invalid(0, `not one value of tag ${tag}`);
  return readDerValues(value.content);
}

function readAt(bytes: Uint8Array, start: number): DerValue {
  const tag = bytes[start] as number;
  if ((tag & 0x1f) === 0x1f) throw invalid(start, "a tag of several bytes");
  const first = bytes[start + 1];
  if (first === undefined) throw invalid(start, "no length");
  let at = start + 2;
  let length = first;
  if (first >= 0x80) {
    const count = first & 0x7f;
    if (count === 0 || count > MAX_LENGTH_BYTES) throw invalid(start, `a length of ${count} bytes`);
    length = 0;
    for (const end = at + count; at < end; at++) {
      const byte = bytes[at];
      if (byte === undefined) throw invalid(start, "a length that is cut short");
      length = length * 256 + byte;
    }
    if (length < 0x80 || length < 256 ** (count - 1))
      throw invalid(start, "a length that is not in its shortest form");
  }
  const end = at + length;
  if (end > bytes.length) throw invalid(start, `${length} bytes announced, ${bytes.length - at} there`);
  return { tag, content: bytes.subarray(at, end), encoded: bytes.subarray(start, end) };
}

/** One value of the parts, one after the other. */
export function encodeDer(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const head =
    length < 0x80
      ? [tag, length]
      : length < 256
        ? [tag, 0x81, length]
        : [tag, 0x82, length >> 8, length & 255];
  return Buffer.concat([Uint8Array.from(head), ...parts]);
}

/** An object identifier in its dotted form, whose first two numbers make 1 byte. */
export function encodeObjectId(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...others] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second];
  for (const number of others) {
    const groups = [number & 0x7f];
    for (let rest = number >> 7; rest > 0; rest >>= 7) groups.unshift((rest & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return encodeDer(Tag.OBJECT_ID, Uint8Array.from(bytes));
}

function invalid(at: number, what: string): SwarmError {
  return new SwarmError({ code: "SWARM_CERTIFICATE_INVALID", message: `DER at byte ${at}: ${what}` });
}
