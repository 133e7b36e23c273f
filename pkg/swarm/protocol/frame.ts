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

export function createFrameReader(options: { readonly maxFrameBytes?: number } = {}): FrameReader {
  return new ChunkedFrameReader(options.maxFrameBytes ?? MAX_FRAME_BYTES);
}

const NO_BYTES = new Uint8Array(0);

/** A class, because a node has hundreds of streams with one or two of them each. */
class ChunkedFrameReader implements FrameReader {
  private readonly maxFrameBytes: number;
  private head: Uint8Array = NO_BYTES;
  private tail: Uint8Array[] = [];
  private tailBytes = 0;
  /** Nothing can be read before this many bytes are there; saves joining the chunks of a long frame again and again. */
  private neededBytes = 1;

  constructor(maxFrameBytes: number) {
    this.maxFrameBytes = maxFrameBytes;
  }

  get bufferedBytes(): number {
    return this.head.length + this.tailBytes;
  }

  push(chunk: Uint8Array): void {
    if (this.bufferedBytes === 0) this.head = chunk;
    else {
      this.tail.push(chunk);
      this.tailBytes += chunk.length;
    }
  }

  next(): Uint8Array | undefined {
    if (this.bufferedBytes < this.neededBytes) return undefined;
    this.join();
    const { head } = this;
    const length = readLength(head);
    if (length === undefined) {
      this.neededBytes = head.length + 1;
      return undefined;
    }
    if (length.sizeBytes > this.maxFrameBytes)
      throw invalidFrame(`frame of ${length.sizeBytes} bytes is over the limit of ${this.maxFrameBytes}`);
    const end = length.headerBytes + length.sizeBytes;
    if (head.length < end) {
      this.neededBytes = end;
      return undefined;
    }
    const frame = head.subarray(length.headerBytes, end);
    // An empty view would keep the whole chunk alive until the next one comes, on each of hundreds of idle streams.
    this.head = head.length === end ? NO_BYTES : head.subarray(end);
    this.neededBytes = 1;
    return frame;
  }

  private join(): void {
    if (this.tailBytes === 0) return;
    this.head = Buffer.concat([this.head, ...this.tail]);
    this.tail = [];
    this.tailBytes = 0;
  }
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
