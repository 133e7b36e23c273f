// SPDX-License-Identifier: Apache-2.0
/**
 * The messages of `/spegel/kad/1.0.0`: the protobuf of libp2p's Kademlia specification, read and written by hand
 * because five fields of it are used and every one of them is on the hot path.
 * https://github.com/libp2p/specs/blob/master/kad-dht/README.md#rpc-messages
 */
import { SwarmError } from "../errors.ts";

export const MessageType = {
  PUT_VALUE: 0,
  GET_VALUE: 1,
  ADD_PROVIDER: 2,
  GET_PROVIDERS: 3,
  FIND_NODE: 4,
  PING: 5,
} as const;

/** Field number and wire type of each field in use. */
const TAG_TYPE = 0x08;
const TAG_KEY = 0x12;
const TAG_CLOSER_PEER = 0x42;
const TAG_PROVIDER_PEER = 0x4a;
const TAG_PEER_ID = 0x0a;
const TAG_PEER_ADDRESS = 0x12;

/** Peers of one kind that are read from one message; a longer list is malformed. */
const MAX_PEERS = 1000;
/** Addresses that are read of one peer; further ones are ignored. */
const MAX_ADDRESSES = 32;

/** A message as received; the parts are views of the frame. */
export interface KadMessage {
  readonly type: number;
  /** A multihash, or a peer id for FIND_NODE; undefined when the field is missing. */
  readonly key: Uint8Array | undefined;
  /** Encoded peers, see `decodePeer`. */
  readonly closerPeers: readonly Uint8Array[];
  readonly providerPeers: readonly Uint8Array[];
}

/** A peer inside a message: its id as multihash and its addresses as binary multiaddrs. */
export interface EncodedPeer {
  readonly id: Uint8Array;
  readonly addresses: readonly Uint8Array[];
}

/** @throws SwarmError SWARM_MESSAGE_INVALID for anything that is no protobuf message of this kind. */
export function decodeMessage(frame: Uint8Array): KadMessage {
  let type = 0;
  let key: Uint8Array | undefined;
  const closerPeers: Uint8Array[] = [];
  const providerPeers: Uint8Array[] = [];
  for (const field of fieldsOf(frame)) {
    if (field.tag === TAG_TYPE) type = field.number;
    else if (field.tag === TAG_KEY) key = field.bytes;
    else if (field.tag === TAG_CLOSER_PEER) closerPeers.push(field.bytes);
    else if (field.tag === TAG_PROVIDER_PEER) providerPeers.push(field.bytes);
    if (closerPeers.length > MAX_PEERS || providerPeers.length > MAX_PEERS)
      throw invalid("message names too many peers");
  }
  return { type, key, closerPeers, providerPeers };
}

/** @throws SwarmError SWARM_MESSAGE_INVALID when it is malformed or has no id. */
export function decodePeer(bytes: Uint8Array): EncodedPeer {
  let id: Uint8Array | undefined;
  const addresses: Uint8Array[] = [];
  for (const field of fieldsOf(bytes)) {
    if (field.tag === TAG_PEER_ID) id = field.bytes;
    else if (field.tag === TAG_PEER_ADDRESS && addresses.length < MAX_ADDRESSES) addresses.push(field.bytes);
  }
  if (id === undefined || id.length === 0) throw invalid("peer without an id");
  return { id, addresses };
}

export function encodePeer(peer: EncodedPeer): Buffer {
  return Buffer.concat([
    field(TAG_PEER_ID, peer.id),
    ...peer.addresses.map((address) => field(TAG_PEER_ADDRESS, address)),
  ]);
}

/** A whole frame, length included. */
export function encodeMessage(message: {
  readonly type: number;
  readonly key?: Uint8Array;
  readonly closerPeers?: readonly Uint8Array[];
  readonly providerPeers?: readonly Uint8Array[];
}): Buffer {
  const parts: Uint8Array[] = [Uint8Array.of(TAG_TYPE, message.type)];
  if (message.key !== undefined) parts.push(field(TAG_KEY, message.key));
  for (const peer of message.closerPeers ?? []) parts.push(field(TAG_CLOSER_PEER, peer));
  for (const peer of message.providerPeers ?? []) parts.push(field(TAG_PROVIDER_PEER, peer));
  return withLength(parts);
}

/**
 * One ADD_PROVIDER frame for each key (multihashes as binary strings), `provider` in all of them, in one piece of memory:
 * a node with thousands of keys and dozens of neighbours writes hundreds of thousands of them.
 */
export function encodeAddProviders(keys: readonly string[], provider: Uint8Array): Buffer {
  const head = Uint8Array.of(TAG_TYPE, MessageType.ADD_PROVIDER);
  const tail = field(TAG_PROVIDER_PEER, provider);
  const frameBytes = (key: string): number => {
    const sizeBytes = head.length + 1 + varint(key.length).length + key.length + tail.length;
    return varint(sizeBytes).length + sizeBytes;
  };
  const encoded = Buffer.allocUnsafe(keys.reduce((total, key) => total + frameBytes(key), 0));
  let offset = 0;
  const put = (bytes: Uint8Array): void => {
    encoded.set(bytes, offset);
    offset += bytes.length;
  };
  for (const key of keys) {
    const keyLength = varint(key.length);
    put(varint(head.length + 1 + keyLength.length + key.length + tail.length));
    put(head);
    encoded[offset++] = TAG_KEY;
    put(keyLength);
    offset += encoded.write(key, offset, "latin1");
    put(tail);
  }
  return encoded;
}

function withLength(parts: readonly Uint8Array[]): Buffer {
  let sizeBytes = 0;
  for (const part of parts) sizeBytes += part.length;
  return Buffer.concat([varint(sizeBytes), ...parts]);
}

function field(tag: number, bytes: Uint8Array): Buffer {
  const length = varint(bytes.length);
  const encoded = Buffer.allocUnsafe(1 + length.length + bytes.length);
  encoded[0] = tag;
  encoded.set(length, 1);
  encoded.set(bytes, 1 + length.length);
  return encoded;
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

interface Field {
  /** Field number and wire type as they stand in the message. */
  readonly tag: number;
  /** The value of a varint; larger than 32 bits is cut off, no field in use is. */
  readonly number: number;
  readonly bytes: Uint8Array;
}

const NO_BYTES = new Uint8Array(0);

/** Walks over the fields of a protobuf message; unknown ones are passed on like the others. */
function* fieldsOf(bytes: Uint8Array): Generator<Field, void, undefined> {
  let offset = 0;

  function readVarint(): number {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = bytes[offset++];
      if (byte === undefined) throw invalid("message ends inside a number");
      if (i < 5) value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    throw invalid("number is longer than ten bytes");
  }

  function take(sizeBytes: number): Uint8Array {
    if (sizeBytes > bytes.length - offset) throw invalid("field is longer than its message");
    const taken = bytes.subarray(offset, offset + sizeBytes);
    offset += sizeBytes;
    return taken;
  }

  while (offset < bytes.length) {
    const tag = readVarint();
    const wireType = tag % 8;
    if (wireType === 0) yield { tag, number: readVarint(), bytes: NO_BYTES };
    else if (wireType === 2) yield { tag, number: 0, bytes: take(readVarint()) };
    else if (wireType === 1) take(8);
    else if (wireType === 5) take(4);
    else throw invalid(`wire type ${wireType} is not in use`);
  }
}

function invalid(message: string): SwarmError {
  return new SwarmError({ code: "SWARM_MESSAGE_INVALID", message });
}
