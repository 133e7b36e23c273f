// SPDX-License-Identifier: Apache-2.0
/**
 * The messages of `/spegel/kad/1.0.0`: the protobuf of libp2p's Kademlia specification, read and written by hand
 * because five fields of it are used and every one of them is on the hot path.
 * https://github.com/libp2p/specs/blob/master/kad-dht/README.md#rpc-messages
 */
import { SwarmError } from "../errors.ts";
import { binaryString } from "../key.ts";

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
  for (const fields = new FieldReader(frame); fields.next(); ) {
    if (fields.tag === TAG_TYPE) type = fields.number;
    else if (fields.tag === TAG_KEY) key = fields.bytes;
    else if (fields.tag === TAG_CLOSER_PEER) closerPeers.push(fields.bytes);
    else if (fields.tag === TAG_PROVIDER_PEER) providerPeers.push(fields.bytes);
    if (closerPeers.length > MAX_PEERS || providerPeers.length > MAX_PEERS)
      throw invalid("message names too many peers");
  }
  return { type, key, closerPeers, providerPeers };
}

/** @throws SwarmError SWARM_MESSAGE_INVALID when it is malformed or has no id. */
export function decodePeer(bytes: Uint8Array): EncodedPeer {
  let id: Uint8Array | undefined;
  const addresses: Uint8Array[] = [];
  for (const fields = new FieldReader(bytes); fields.next(); ) {
    if (fields.tag === TAG_PEER_ID) id = fields.bytes;
    else if (fields.tag === TAG_PEER_ADDRESS && addresses.length < MAX_ADDRESSES)
      addresses.push(fields.bytes);
  }
  if (id === undefined || id.length === 0) throw invalid("peer without an id");
  return { id, addresses };
}

/** The id of an encoded peer as binary string. It is the first field of all that known implementations write. */
export function idOfPeer(bytes: Uint8Array): string {
  const sizeBytes = bytes[1] as number;
  const isPlain =
    bytes[0] === TAG_PEER_ID && sizeBytes > 0 && sizeBytes < 0x80 && bytes.length >= 2 + sizeBytes;
  return binaryString(isPlain ? bytes.subarray(2, 2 + sizeBytes) : decodePeer(bytes).id);
}

export function encodePeer(peer: EncodedPeer): Buffer {
  let sizeBytes = fieldBytes(peer.id);
  for (const address of peer.addresses) sizeBytes += fieldBytes(address);
  const encoded = Buffer.allocUnsafe(sizeBytes);
  let offset = writeField(encoded, TAG_PEER_ID, peer.id, 0);
  for (const address of peer.addresses) offset = writeField(encoded, TAG_PEER_ADDRESS, address, offset);
  return encoded;
}

/** A whole frame, length included. */
export function encodeMessage(message: {
  readonly type: number;
  readonly key?: Uint8Array;
  readonly closerPeers?: readonly Uint8Array[];
  readonly providerPeers?: readonly Uint8Array[];
}): Buffer {
  const { type, key, closerPeers = [], providerPeers = [] } = message;
  let sizeBytes = 2;
  if (key !== undefined) sizeBytes += fieldBytes(key);
  for (const peer of closerPeers) sizeBytes += fieldBytes(peer);
  for (const peer of providerPeers) sizeBytes += fieldBytes(peer);
  const encoded = Buffer.allocUnsafe(varintBytes(sizeBytes) + sizeBytes);
  let offset = writeVarint(encoded, sizeBytes, 0);
  encoded[offset++] = TAG_TYPE;
  encoded[offset++] = type;
  if (key !== undefined) offset = writeField(encoded, TAG_KEY, key, offset);
  for (const peer of closerPeers) offset = writeField(encoded, TAG_CLOSER_PEER, peer, offset);
  for (const peer of providerPeers) offset = writeField(encoded, TAG_PROVIDER_PEER, peer, offset);
  return encoded;
}

/**
 * One ADD_PROVIDER frame for each key (multihashes as binary strings), `provider` in all of them, in one piece of memory:
 * a node with thousands of keys and dozens of neighbours writes hundreds of thousands of them.
 */
export function encodeAddProviders(keys: readonly string[], provider: Uint8Array): Buffer {
  const messageBytes = (key: string): number =>
    2 + 1 + varintBytes(key.length) + key.length + fieldBytes(provider);
  let totalBytes = 0;
  for (const key of keys) totalBytes += varintBytes(messageBytes(key)) + messageBytes(key);
  const encoded = Buffer.allocUnsafe(totalBytes);
  let offset = 0;
  for (const key of keys) {
    offset = writeVarint(encoded, messageBytes(key), offset);
    encoded[offset++] = TAG_TYPE;
    encoded[offset++] = MessageType.ADD_PROVIDER;
    encoded[offset++] = TAG_KEY;
    offset = writeVarint(encoded, key.length, offset);
    offset += encoded.write(key, offset, "latin1");
    offset = writeField(encoded, TAG_PROVIDER_PEER, provider, offset);
  }
  return encoded;
}

/** What a field with these bytes takes: tag, length, bytes. */
function fieldBytes(bytes: Uint8Array): number {
  return 1 + varintBytes(bytes.length) + bytes.length;
}

/** @returns the place behind it, as the other writers do */
function writeField(into: Buffer, tag: number, bytes: Uint8Array, at: number): number {
  into[at] = tag;
  const offset = writeVarint(into, bytes.length, at + 1);
  into.set(bytes, offset);
  return offset + bytes.length;
}

function varintBytes(value: number): number {
  let sizeBytes = 1;
  for (let rest = value >>> 7; rest > 0; rest >>>= 7) sizeBytes++;
  return sizeBytes;
}

function writeVarint(into: Buffer, value: number, at: number): number {
  let offset = at;
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) into[offset++] = (rest & 0x7f) | 0x80;
  into[offset++] = rest;
  return offset;
}

const NO_BYTES = new Uint8Array(0);

/** Walks over the fields of a protobuf message; unknown ones are given like the others. */
class FieldReader {
  /** Field number and wire type of the current field, as they stand in the message. */
  tag = 0;
  /** The value of a varint; larger than 32 bits is cut off, no field in use is. */
  number = 0;
  bytes: Uint8Array = NO_BYTES;
  private readonly message: Uint8Array;
  private offset = 0;

  constructor(message: Uint8Array) {
    this.message = message;
  }

  /** False when there is no further field. */
  next(): boolean {
    while (this.offset < this.message.length) {
      this.tag = this.readVarint();
      const wireType = this.tag % 8;
      this.number = wireType === 0 ? this.readVarint() : 0;
      this.bytes = wireType === 2 ? this.take(this.readVarint()) : NO_BYTES;
      if (wireType === 0 || wireType === 2) return true;
      if (wireType === 1) this.take(8);
      else if (wireType === 5) this.take(4);
      else throw invalid(`wire type ${wireType} is not in use`);
    }
    return false;
  }

  private readVarint(): number {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = this.message[this.offset++];
      if (byte === undefined) throw invalid("message ends inside a number");
      if (i === 0 && byte < 0x80) return byte;
      if (i < 5) value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    throw invalid("number is longer than ten bytes");
  }

  private take(sizeBytes: number): Uint8Array {
    if (sizeBytes > this.message.length - this.offset) throw invalid("field is longer than its message");
    const taken = this.message.subarray(this.offset, this.offset + sizeBytes);
    this.offset += sizeBytes;
    return taken;
  }
}

function invalid(message: string): SwarmError {
  return new SwarmError({ code: "SWARM_MESSAGE_INVALID", message });
}
