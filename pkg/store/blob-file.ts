// SPDX-License-Identifier: Apache-2.0
import { closeSync, constants, fstatSync, lstat, open } from "node:fs";
import { promisify } from "node:util";
import { systemErrorCode } from "#errors";
import { type Digest, detectMediaType, MAX_MANIFEST_BYTES, MEDIA_TYPE_OCTET_STREAM } from "#oci";
import { readContentBytes } from "./content-bytes.ts";
import type { Content, ContentInfo } from "./content-store.ts";

// Plain descriptors: a FileHandle for every request costs more than the system calls.
const openDescriptor = promisify(open);
const statPath = promisify(lstat);

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

  function remember(key: string, mediaType: string): void {
    const oldest = mediaTypes.size >= MAX_CACHED_MEDIA_TYPES ? mediaTypes.keys().next().value : undefined;
    if (oldest !== undefined) mediaTypes.delete(oldest);
    mediaTypes.set(key, mediaType);
  }

  return {
    open: openRegular,

    async stat(path, digest, { signal }) {
      const sizeBytes = await regularSize(path);
      if (sizeBytes === undefined) return undefined;
      const known = mediaTypes.get(`${digest}/${sizeBytes}`);
      if (known !== undefined) return { digest, sizeBytes, mediaType: known };
      await using content = await openRegular(path, { signal });
      if (content === undefined) return undefined;
      const mediaType = await sniff(content);
      remember(`${digest}/${content.sizeBytes}`, mediaType);
      return { digest, sizeBytes: content.sizeBytes, mediaType };
    },
  };
}

async function regularSize(path: string): Promise<number | undefined> {
  const stats = await unlessAbsent(statPath(path));
  return stats?.isFile() ? stats.size : undefined;
}

async function openRegular(
  path: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<Content | undefined> {
  signal.throwIfAborted();
  const fd = await unlessAbsent(openDescriptor(path, OPEN_FLAGS));
  if (fd === undefined) return undefined;
  try {
    signal.throwIfAborted();
    const stats = fstatSync(fd); // its inode is in memory: that does not wait for the disk
    if (stats.isFile()) return openedFile(fd, stats.size);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return undefined;
}

function openedFile(fd: number, sizeBytes: number): Content {
  let isOpen = true;
  return {
    kind: "file",
    fd,
    sizeBytes,
    async [Symbol.asyncDispose]() {
      if (isOpen) closeSync(fd); // nothing was written: there is nothing to wait for
      isOpen = false;
    },
  };
}

async function unlessAbsent<Value>(wanted: Promise<Value>): Promise<Value | undefined> {
  try {
    return await wanted;
  } catch (error) {
    if (ABSENT.has(systemErrorCode(error) ?? "")) return undefined;
    throw error;
  }
}

// Layers are told from JSON by their first bytes, so that only documents are read whole.
async function sniff(content: Content): Promise<string> {
  const { sizeBytes } = content;
  if (sizeBytes === 0 || sizeBytes > MAX_MANIFEST_BYTES) return MEDIA_TYPE_OCTET_STREAM;
  const head = await readContentBytes(content, { maxBytes: SNIFF_BYTES });
  const first = head.find((byte) => byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d);
  if (first !== undefined && first !== 0x7b) return MEDIA_TYPE_OCTET_STREAM;
  return detectMediaType(
    head.length === sizeBytes ? head : await readContentBytes(content, { maxBytes: sizeBytes }),
  );
}
