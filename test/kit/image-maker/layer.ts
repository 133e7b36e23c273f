// SPDX-License-Identifier: Apache-2.0
import { createCipheriv, createHash } from "node:crypto";
import { open, rename } from "node:fs/promises";
import { join } from "node:path";
import { compose, Readable } from "node:stream";
import { constants, createGzip, createZstdCompress } from "node:zlib";
import type { Digest } from "#oci";

export type LayerCompression = "none" | "gzip" | "zstd";

export interface WrittenLayer {
  readonly digest: Digest;
  readonly sizeBytes: number;
  /** Digest of the uncompressed tar, the config's `diff_ids`. */
  readonly diffId: Digest;
}

const CHUNK_BYTES = 4 * 1024 * 1024;
const TAR_BLOCK_BYTES = 512;

/** A file in a layer: given bytes, or so many that look random and follow from the seed. */
export type LayerFile =
  | { readonly path: string; readonly mode: number; readonly bytes: Buffer }
  | { readonly path: string; readonly mode: number; readonly seed: string; readonly sizeBytes: number };

/** Writes a layer into `blobs` under its digest. */
export async function writeLayer(options: {
  readonly blobs: string;
  readonly files: readonly LayerFile[];
  readonly compression: LayerCompression;
  readonly signal: AbortSignal;
}): Promise<WrittenLayer> {
  const tarHash = createHash("sha256");
  const blobHash = options.compression === "none" ? tarHash : createHash("sha256");
  const partial = join(options.blobs, ".partial");
  let sizeBytes = 0;
  {
    await using file = await open(partial, "w");
    for await (const chunk of compressed(hashed(tarOf(options.files), tarHash), options.compression)) {
      options.signal.throwIfAborted();
      if (blobHash !== tarHash) blobHash.update(chunk);
      await file.write(chunk);
      sizeBytes += chunk.length;
    }
  }
  const diffId = tarHash.copy().digest("hex");
  const hex = blobHash.digest("hex");
  await rename(partial, join(options.blobs, hex));
  return { digest: `sha256:${hex}` as Digest, sizeBytes, diffId: `sha256:${diffId}` as Digest };
}

async function* hashed(
  source: Iterable<Buffer>,
  hash: ReturnType<typeof createHash>,
): AsyncGenerator<Buffer> {
  for (const chunk of source) {
    hash.update(chunk);
    yield chunk;
  }
}

function compressed(source: AsyncIterable<Buffer>, compression: LayerCompression): AsyncIterable<Buffer> {
  if (compression === "none") return source;
  // The content cannot be compressed: the fastest level is as good as any.
  const compressor =
    compression === "gzip"
      ? createGzip({ level: 1, chunkSize: 1024 * 1024 })
      : createZstdCompress({ chunkSize: 1024 * 1024, params: { [constants.ZSTD_c_compressionLevel]: 1 } });
  return compose(Readable.from(source, { objectMode: false }), compressor) as AsyncIterable<Buffer>;
}

function* tarOf(files: readonly LayerFile[]): Generator<Buffer> {
  for (const file of files) {
    const sizeBytes = "bytes" in file ? file.bytes.length : file.sizeBytes;
    yield tarHeader(file, sizeBytes);
    if ("bytes" in file) yield file.bytes;
    else yield* keyStream(file.seed, sizeBytes);
    yield Buffer.alloc((TAR_BLOCK_BYTES - (sizeBytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES);
  }
  yield Buffer.alloc(2 * TAR_BLOCK_BYTES);
}

// AES in counter mode over zeros: as fast as the disk, and the same bytes for the same seed.
function* keyStream(seed: string, sizeBytes: number): Generator<Buffer> {
  const cipher = createCipheriv("aes-256-ctr", createHash("sha256").update(seed).digest(), Buffer.alloc(16));
  const zeros = Buffer.alloc(Math.min(CHUNK_BYTES, sizeBytes));
  for (let left = sizeBytes; left > 0; left -= CHUNK_BYTES) {
    yield cipher.update(left < CHUNK_BYTES ? zeros.subarray(0, left) : zeros);
  }
}

// POSIX ustar: numbers in octal text, the checksum taken over a header whose checksum field is blank.
function tarHeader(file: { readonly path: string; readonly mode: number }, sizeBytes: number): Buffer {
  const header = Buffer.alloc(TAR_BLOCK_BYTES);
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, "0")}\0`;
  header.write(file.path.replace(/^\/+/, ""), 0, 100);
  header.write(octal(file.mode, 7), 100);
  header.write(octal(0, 7), 108);
  header.write(octal(0, 7), 116);
  header.write(octal(sizeBytes, 11), 124);
  header.write(octal(0, 11), 136);
  header.write(" ".repeat(8), 148);
  header.write("0", 156);
  header.write("ustar\x0000", 257);
  const checksum = header.reduce((sum, byte) => sum + byte, 0);
  header.write(`${checksum.toString(8).padStart(6, "0")}\0 `, 148);
  return header;
}
