// SPDX-License-Identifier: Apache-2.0

/** Memory for the bodies of requests, used again and again: fresh memory for each is what the garbage collector runs for. */
export interface BodyBuffers {
  /** At least so large; without memory for 0 bytes. */
  take(sizeBytes: number): Buffer;
  /** Takes it back for others, once; what does not fit any more is let go. */
  giveBack(buffer: Buffer): void;
}

const KIB = 1024;
const MIN_BYTES = 4 * KIB;
/** Larger bodies are rare, and their memory is let go. */
const MAX_BYTES = 512 * KIB;
/** Kept of each size; there are eight. */
const MAX_KEPT = 8;

export function createBodyBuffers(): BodyBuffers {
  const kept = new Map<number, Buffer[]>();
  return {
    take(sizeBytes) {
      if (sizeBytes === 0 || sizeBytes > MAX_BYTES) return Buffer.allocUnsafeSlow(sizeBytes);
      let classBytes = MIN_BYTES;
      while (classBytes < sizeBytes) classBytes *= 2;
      return kept.get(classBytes)?.pop() ?? Buffer.allocUnsafeSlow(classBytes);
    },
    giveBack(buffer) {
      if (buffer.length === 0 || buffer.length > MAX_BYTES) return;
      const same = kept.get(buffer.length);
      if (same === undefined) kept.set(buffer.length, [buffer]);
      else if (same.length < MAX_KEPT) same.push(buffer);
    },
  };
}
