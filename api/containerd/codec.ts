// SPDX-License-Identifier: Apache-2.0
/**
 * Protocol buffers, proto3, as far as containerd's API needs them: a message is a table of fields.
 *
 * Decoding never reads beyond the given bytes, skips unknown fields and throws RangeError on malformed ones. A
 * repeated singular field keeps its last value.
 */
export interface Codec<T> {
  /** Fields left out are not written, as proto3 writes defaults. */
  encode(message: Partial<T>): Buffer;
  decode(bytes: Uint8Array): T;
}

/** The message type of a codec. */
export type MessageOf<C> = C extends Codec<infer T> ? T : never;

interface Field<T> {
  readonly number: number;
  readonly wireType: 0 | 2;
  initial(): T;
  /** The encoded elements of this field: none, one or many. */
  encode(value: T): readonly (Buffer | number)[];
  /** The value after one more element. */
  merge(value: T, element: Buffer, varint: number): T;
}

const MAX_VARINT_BYTES = 10;

/** A codec of the message with these fields. */
export function message<T extends object>(fields: { readonly [K in keyof T]: Field<T[K]> }): Codec<T> {
  const names = Object.keys(fields) as (keyof T)[];
  const byNumber = new Map(names.map((name) => [fields[name].number, name]));

  return {
    encode(value) {
      const parts: Buffer[] = [];
      for (const name of names) {
        const field = fields[name];
        const given = value[name];
        if (given === undefined) continue;
        for (const element of field.encode(given)) {
          parts.push(encodeVarint((field.number << 3) | field.wireType));
          if (typeof element === "number") parts.push(encodeVarint(element));
          else parts.push(encodeVarint(element.length), element);
        }
      }
      return Buffer.concat(parts);
    },

    decode(bytes) {
      const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const decoded = {} as T;
      for (const name of names) decoded[name] = fields[name].initial();
      const cursor = { buffer, offset: 0 };
      while (cursor.offset < buffer.length) {
        const tag = readVarint(cursor);
        const wireType = tag & 7;
        const number = Math.floor(tag / 8);
        const name = byNumber.get(number);
        if (number === 0) throw new RangeError("field number 0");
        if (name !== undefined && fields[name].wireType === wireType) {
          const element = wireType === 2 ? readBytes(cursor) : EMPTY;
          const varint = wireType === 0 ? readVarint(cursor) : 0;
          decoded[name] = fields[name].merge(decoded[name], element, varint);
        } else {
          skip(cursor, wireType);
        }
      }
      return decoded;
    },
  };
}

export function string(number: number): Field<string> {
  return {
    number,
    wireType: 2,
    initial: () => "",
    encode: (value) => (value === "" ? [] : [Buffer.from(value, "utf8")]),
    merge: (_, element) => element.toString("utf8"),
  };
}

export function bytes(number: number): Field<Uint8Array> {
  return {
    number,
    wireType: 2,
    initial: () => EMPTY,
    encode: (value) =>
      value.length === 0 ? [] : [Buffer.from(value.buffer, value.byteOffset, value.byteLength)],
    merge: (_, element) => element,
  };
}

/** int64 and int32 as a number; a value that a number cannot hold exactly is malformed. */
export function integer(number: number): Field<number> {
  return {
    number,
    wireType: 0,
    initial: () => 0,
    encode: (value) => (value === 0 ? [] : [value]),
    merge: (_, _element, varint) => varint,
  };
}

export function boolean(number: number): Field<boolean> {
  return {
    number,
    wireType: 0,
    initial: () => false,
    encode: (value) => (value ? [1] : []),
    merge: (_, _element, varint) => varint !== 0,
  };
}

export function strings(number: number): Field<readonly string[]> {
  return {
    number,
    wireType: 2,
    initial: () => [],
    encode: (value) => value.map((each) => Buffer.from(each, "utf8")),
    merge: (value, element) => append(value, element.toString("utf8")),
  };
}

/** A nested message; undefined when absent. */
export function one<T>(number: number, codec: Codec<T>): Field<T | undefined> {
  return {
    number,
    wireType: 2,
    initial: () => undefined,
    encode: (value) => (value === undefined ? [] : [codec.encode(value)]),
    merge: (_, element) => codec.decode(element),
  };
}

export function many<T>(number: number, codec: Codec<T>): Field<readonly T[]> {
  return {
    number,
    wireType: 2,
    initial: () => [],
    encode: (value) => value.map((each) => codec.encode(each)),
    merge: (value, element) => append(value, codec.decode(element)),
  };
}

/** `map<string, string>`, in the order of the wire. */
export function stringMap(number: number): Field<ReadonlyMap<string, string>> {
  return {
    number,
    wireType: 2,
    initial: () => new Map(),
    encode: (value) => Array.from(value, ([key, text]) => mapEntry.encode({ key, text })),
    merge: (value, element) => {
      const { key, text } = mapEntry.decode(element);
      return (value as Map<string, string>).set(key, text);
    },
  };
}

const EMPTY = Buffer.alloc(0);
const mapEntry = message<{ key: string; text: string }>({ key: string(1), text: string(2) });

// The array was made by `initial` for this message alone, so it may grow in place.
function append<T>(list: readonly T[], element: T): readonly T[] {
  (list as T[]).push(element);
  return list;
}

interface Cursor {
  readonly buffer: Buffer;
  offset: number;
}

function encodeVarint(value: number): Buffer {
  const encoded: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  while (rest > 127n) {
    encoded.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  return Buffer.from([...encoded, Number(rest)]);
}

function readVarint(cursor: Cursor): number {
  const { buffer } = cursor;
  let value = 0;
  for (let shift = 0; shift < 28; shift += 7) {
    const byte = buffer[cursor.offset++];
    if (byte === undefined) throw new RangeError("truncated varint");
    value |= (byte & 127) << shift;
    if (byte < 128) return value;
  }
  return readLongVarint(cursor, BigInt(value));
}

function readLongVarint(cursor: Cursor, low: bigint): number {
  let value = low;
  for (let count = 4; count < MAX_VARINT_BYTES; count++) {
    const byte = cursor.buffer[cursor.offset++];
    if (byte === undefined) throw new RangeError("truncated varint");
    value |= BigInt(byte & 127) << BigInt(7 * count);
    if (byte < 128) return exact(BigInt.asIntN(64, value));
  }
  throw new RangeError("varint of more than 10 bytes");
}

function exact(value: bigint): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw new RangeError("integer beyond 2^53");
  return number;
}

function readBytes(cursor: Cursor): Buffer {
  const length = readVarint(cursor);
  const end = cursor.offset + length;
  if (length < 0 || end > cursor.buffer.length) throw new RangeError("truncated field");
  const slice = cursor.buffer.subarray(cursor.offset, end);
  cursor.offset = end;
  return slice;
}

function skip(cursor: Cursor, wireType: number): void {
  if (wireType === 0) skipVarint(cursor);
  else if (wireType === 1) cursor.offset += 8;
  else if (wireType === 2) readBytes(cursor);
  else if (wireType === 5) cursor.offset += 4;
  else throw new RangeError(`wire type ${wireType}`);
  if (cursor.offset > cursor.buffer.length) throw new RangeError("truncated field");
}

// An unknown field may hold more than a number can.
function skipVarint(cursor: Cursor): void {
  for (let count = 0; count < MAX_VARINT_BYTES; count++) {
    const byte = cursor.buffer[cursor.offset++];
    if (byte === undefined) throw new RangeError("truncated varint");
    if (byte < 128) return;
  }
  throw new RangeError("varint of more than 10 bytes");
}
