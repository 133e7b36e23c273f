// SPDX-License-Identifier: Apache-2.0
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { systemErrorCode } from "#errors";
import { type Digest, detectMediaType, MAX_MANIFEST_BYTES, MEDIA_TYPE_OCTET_STREAM } from "#oci";
import type { Content, ContentInfo } from "./content-store.ts";

// Neither a link out of the store nor a FIFO that would block the open is content.
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const ABSENT = new Set(["ENOENT", "ENOTDIR", "ELOOP", "ENXIO"]);
const SNIFF_BYTES = 4096;
const MAX_CACHED_MEDIA_TYPES = 512;

/** Reads content-addressed files. What a file's bytes tell is remembered, since the bytes cannot change. */
export interface BlobFiles {
  /** @returns undefined when there is no regular file at `path` */
  open(path: string, options: { readonly signal: AbortSignal }): Promise<Content | undefined>;
  stat(
    path: string,
    digest: Digest,
    options: { readonly signal: AbortSignal },
  ): Promise<ContentInfo | undefined>;
}

export function createBlobFiles(): BlobFiles {
  const mediaTypes = new Map<string, string>();

  async function mediaTypeOf(handle: FileHandle, digest: Digest, sizeBytes: number): Promise<string> {
    const key = `${digest}/${sizeBytes}`;
    const known = mediaTypes.get(key);
    if (known !== undefined) return known;
    const mediaType = await sniff(handle, sizeBytes);
    const oldest = mediaTypes.size >= MAX_CACHED_MEDIA_TYPES ? mediaTypes.keys().next().value : undefined;
    if (oldest !== undefined) mediaTypes.delete(oldest);
    mediaTypes.set(key, mediaType);
    return mediaType;
  }

  return {
    async open(path, { signal }) {
      const opened = await openRegular(path, signal);
      if (opened === undefined) return undefined;
      const { handle, sizeBytes } = opened;
      let closing: Promise<void> | undefined;
      return {
        kind: "file",
        fd: handle.fd,
        sizeBytes,
        [Symbol.asyncDispose]: () => (closing ??= handle.close()),
      };
    },

    async stat(path, digest, { signal }) {
      const opened = await openRegular(path, signal);
      if (opened === undefined) return undefined;
      await using handle = opened.handle;
      return {
        digest,
        sizeBytes: opened.sizeBytes,
        mediaType: await mediaTypeOf(handle, digest, opened.sizeBytes),
      };
    },
  };
}

async function openRegular(
  path: string,
  signal: AbortSignal,
): Promise<{ readonly handle: FileHandle; readonly sizeBytes: number } | undefined> {
  signal.throwIfAborted();
  let handle: FileHandle;
  try {
    handle = await open(path, OPEN_FLAGS);
  } catch (error) {
    if (ABSENT.has(systemErrorCode(error) ?? "")) return undefined;
    throw error;
  }
  try {
    signal.throwIfAborted();
    const stats = await handle.stat();
    if (stats.isFile()) return { handle, sizeBytes: stats.size };
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  return undefined;
}

// Layers are told from JSON by their first bytes, so that only documents are read whole.
async function sniff(handle: FileHandle, sizeBytes: number): Promise<string> {
  if (sizeBytes === 0 || sizeBytes > MAX_MANIFEST_BYTES) return MEDIA_TYPE_OCTET_STREAM;
  const head = await readAll(handle, Math.min(sizeBytes, SNIFF_BYTES));
  const first = head.find((byte) => byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d);
  if (first !== undefined && first !== 0x7b) return MEDIA_TYPE_OCTET_STREAM;
  return detectMediaType(head.length === sizeBytes ? head : await readAll(handle, sizeBytes));
}

/** Up to `sizeBytes` from the start of a file; fewer when the file is shorter. */
export async function readAll(handle: FileHandle, sizeBytes: number): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(sizeBytes);
  let filled = 0;
  while (filled < sizeBytes) {
    const { bytesRead } = await handle.read(bytes, filled, sizeBytes - filled, filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}
