// SPDX-License-Identifier: Apache-2.0
import { hash } from "node:crypto";
import { CID } from "multiformats/cid";
import * as raw from "multiformats/codecs/raw";
import * as Digest from "multiformats/hashes/digest";

const SHA2_256 = 0x12;
const DIGEST_BYTES = 32;

/** The multihash of a key string: `0x12 0x20` and the SHA2-256 of its UTF-8 bytes (34 bytes). This is what travels as message key. */
export function multihashOf(key: string): Buffer {
  const multihash = Buffer.allocUnsafe(2 + DIGEST_BYTES);
  multihash[0] = SHA2_256;
  multihash[1] = DIGEST_BYTES;
  sha256(key).copy(multihash, 2);
  return multihash;
}

/** The place of a multihash or peer id in the Kademlia key space: SHA2-256 of its bytes (32 bytes). */
export function kademliaIdOf(multihash: Uint8Array): Buffer {
  return sha256(multihash);
}

/** The text form that Spegel logs: CIDv1, codec raw. */
export function cidOf(key: string): string {
  return CID.createV1(raw.code, Digest.decode(multihashOf(key))).toString();
}

/** Bytes as a string of one character each: a map key without the cost of hexadecimal digits. */
export function binaryString(bytes: Uint8Array): string {
  const buffer = Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return buffer.toString("latin1");
}

/** The inverse of `binaryString`. */
export function binaryBytes(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

/** By way of a string: twice as fast as a buffer of its own for each hash, and no work for the garbage collector outside of the heap. */
function sha256(data: string | Uint8Array): Buffer {
  return binaryBytes(hash("sha256", data, "latin1"));
}
