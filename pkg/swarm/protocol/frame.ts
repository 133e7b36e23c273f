// SPDX-License-Identifier: Apache-2.0
import { SwarmError } from "../errors.ts";

/** No message of the protocol may be longer (go-libp2p-kad-dht and js-libp2p agree on 4 MiB). */
export const MAX_FRAME_BYTES = 4 * 1024 * 1024;
/** A length up to `MAX_FRAME_BYTES` fits into four bytes of seven bits. */
const MAX_LENGTH_BYTES = 4;

/** Cuts a byte stream into frames: a varint length, then that many bytes. */
export interface FrameReader {
  /** Adds received bytes. They are referenced, not copied, until `next` has passed them. */
  push(chunk: Uint8Array): void;
  /**
   * The next whole frame without its length, undefined when more bytes are needed.
   * The bytes belong to a received chunk: copy what is to be kept.
   * @throws SwarmError SWARM_MESSAGE_INVALID when a length is longer than the limit or malformed.
   */
  next(): Uint8Array | undefined;
  /** Bytes that wait for the rest of their frame. */
  readonly bufferedBytes: number;
}

const NO_BYTES = new Uint8Array(0);

export function createFrameReader(options: { readonly maxFrameBytes?: number } = {}): FrameReader {
  const maxFrameBytes = options.maxFrameBytes ?? MAX_FRAME_BYTES;
  let head: Uint8Array = NO_BYTES;
  let tail: Uint8Array[] = [];
  let tailBytes = 0;
  /** Nothing can be read before this many bytes are there; saves joining the chunks of a long frame again and again. */
  let neededBytes = 1;

  function join(): void {
    if (tailBytes === 0) return;
    head = Buffer.concat([head, ...tail]);
    tail = [];
    tailBytes = 0;
  }

  return {
    get bufferedBytes() {
      return head.length + tailBytes;
    },
    push(chunk) {
      if (head.length === 0 && tailBytes === 0) head = chunk;
      else {
        tail.push(chunk);
        tailBytes += chunk.length;
      }
    },
    next() {
      if (head.length + tailBytes < neededBytes) return undefined;
      join();
      const length = readLength(head);
      if (length === undefined) {
        neededBytes = head.length + 1;
        return undefined;
      }
      if (length.sizeBytes > maxFrameBytes)
        throw invalidFrame(`frame of ${length.sizeBytes} bytes is over the limit of ${maxFrameBytes}`);
      const end = length.headerBytes + length.sizeBytes;
      if (head.length < end) {
        neededBytes = end;
        return undefined;
      }
      const frame = head.subarray(length.headerBytes, end);
      // An empty view would keep the whole chunk alive until the next one comes, on each of hundreds of idle streams.
      head = head.length === end ? NO_BYTES : head.subarray(end);
      neededBytes = 1;
      return frame;
    },
  };
}

function readLength(
  bytes: Uint8Array,
): { readonly sizeBytes: number; readonly headerBytes: number } | undefined {
  let sizeBytes = 0;
  for (let i = 0; i < MAX_LENGTH_BYTES; i++) {
    const byte = bytes[i];
    if (byte === undefined) return undefined;
    sizeBytes |= (byte & 0x7f) << (7 * i);
    if (byte < 0x80) return { sizeBytes, headerBytes: i + 1 };
  }
  throw invalidFrame("frame length is longer than four bytes");
}

function invalidFrame(message: string): SwarmError {
  return new SwarmError({ code: "SWARM_MESSAGE_INVALID", message });
}
