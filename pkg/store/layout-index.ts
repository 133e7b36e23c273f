// SPDX-License-Identifier: Apache-2.0
import { constants } from "node:fs";
import { type FileHandle, open, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { systemErrorCode } from "#errors";
import { type Digest, isDigest } from "#oci";
import { readContentBytes } from "./content-bytes.ts";
import type { ImageEntry } from "./content-store.ts";
import { StoreError } from "./errors.ts";

const MAX_INDEX_BYTES = 16 * 1024 * 1024;
const MAX_INDEX_ENTRIES = 50_000;
const MAX_NAME_LENGTH = 1024;
const LOCK_RETRY_MS = 10;
// A holder works for milliseconds; a lock this old was left by a process that died.
const LOCK_STALE_MS = 10_000;

const REF_NAME = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME = "io.containerd.image.name";

/** The descriptor that a name is given in index.json. */
export interface NamedDescriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/** index.json of an OCI image layout. Other programs may change it; what they wrote is kept. */
export interface LayoutIndex {
  images(options: { readonly signal: AbortSignal }): Promise<readonly ImageEntry[]>;
  /** Points `name` at a descriptor, in place of what it pointed at. */
  tag(name: string, target: NamedDescriptor, options: { readonly signal: AbortSignal }): Promise<void>;
}

/** @param directory of the layout; index.json may be absent, which is an empty index */
export function createLayoutIndex(directory: string): LayoutIndex {
  const path = join(directory, "index.json");
  let cached: { readonly version: string; readonly images: readonly ImageEntry[] } | undefined;

  return {
    async images({ signal }) {
      signal.throwIfAborted();
      const file = await readIndexFile(path, cached?.version);
      if (file === "unchanged" && cached !== undefined) return cached.images;
      if (file === undefined || file === "unchanged") return [];
      cached = { version: file.version, images: imagesOf(manifestsOf(parseIndex(file.text))) };
      return cached.images;
    },

    async tag(name, target, { signal }) {
      await using _lock = await lock(`${path}.lock`, signal);
      const file = await readIndexFile(path, undefined);
      const index = typeof file === "object" ? parseIndex(file.text) : { schemaVersion: 2, manifests: [] };
      const others = manifestsOf(index).filter((each) => nameOf(each) !== name);
      if (others.length >= MAX_INDEX_ENTRIES)
        throw invalid(`index.json has more than ${MAX_INDEX_ENTRIES} entries`);
      const entry = {
        mediaType: target.mediaType,
        digest: target.digest,
        size: target.sizeBytes,
        annotations: { [REF_NAME]: name },
      };
      await writeAtomically(path, JSON.stringify({ ...index, manifests: [...others, entry] }));
    },
  };
}

async function readIndexFile(
  path: string,
  knownVersion: string | undefined,
): Promise<{ readonly version: string; readonly text: string } | "unchanged" | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
  await using file = handle;
  const stats = await file.stat({ bigint: true });
  const version = `${stats.ino}/${stats.size}/${stats.mtimeNs}/${stats.ctimeNs}`;
  if (version === knownVersion) return "unchanged";
  if (!stats.isFile()) throw invalid("index.json is not a regular file");
  if (stats.size > MAX_INDEX_BYTES) throw invalid(`index.json is larger than ${MAX_INDEX_BYTES} bytes`);
  const content = { kind: "file", fd: file.fd, sizeBytes: Number(stats.size) } as const;
  const bytes = await readContentBytes(content, { maxBytes: MAX_INDEX_BYTES });
  return { version, text: Buffer.from(bytes).toString("utf8") };
}

function parseIndex(text: string): Record<string, unknown> {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw invalid("index.json is not JSON", error);
  }
  if (!isRecord(document)) throw invalid("index.json is not an object");
  const manifests = document["manifests"] ?? [];
  if (!Array.isArray(manifests)) throw invalid('"manifests" of index.json is not an array');
  if (manifests.length > MAX_INDEX_ENTRIES)
    throw invalid(`index.json has more than ${MAX_INDEX_ENTRIES} entries`);
  return document;
}

function manifestsOf(index: Record<string, unknown>): readonly unknown[] {
  return (index["manifests"] as readonly unknown[] | undefined) ?? [];
}

// An entry that is malformed or unnamed is somebody else's business; the good ones are still served.
function imagesOf(manifests: readonly unknown[]): readonly ImageEntry[] {
  const images = new Map<string, ImageEntry>();
  for (const entry of manifests) {
    const name = nameOf(entry);
    const digest = isRecord(entry) ? entry["digest"] : undefined;
    if (name === undefined || typeof digest !== "string" || !isDigest(digest)) continue;
    images.set(name, { name, digest });
  }
  return [...images.values()];
}

// containerd exports the full name beside a plain tag; skopeo and we have one annotation only.
function nameOf(entry: unknown): string | undefined {
  const annotations = isRecord(entry) ? entry["annotations"] : undefined;
  if (!isRecord(annotations)) return undefined;
  const name = annotations[CONTAINERD_NAME] ?? annotations[REF_NAME];
  return typeof name === "string" && name !== "" && name.length <= MAX_NAME_LENGTH ? name : undefined;
}

async function writeAtomically(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`; // one writer at a time: the lock is held
  const file = await open(temporary, "w", 0o644);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

// O_EXCL is the one lock that every file system and container boundary agrees on.
async function lock(path: string, signal: AbortSignal): Promise<AsyncDisposable> {
  for (;;) {
    signal.throwIfAborted();
    try {
      await writeFile(path, "", { flag: "wx" });
      return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
    } catch (error) {
      if (systemErrorCode(error) !== "EEXIST") throw error;
    }
    if (!(await removeStale(path))) await delay(LOCK_RETRY_MS * (0.5 + Math.random()), undefined, { signal });
  }
}

async function removeStale(path: string): Promise<boolean> {
  try {
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs < LOCK_STALE_MS) return false;
    // Of several processes that see the dead lock only one renames it away.
    const grave = `${path}.${process.pid}`;
    await rename(path, grave);
    await rm(grave, { force: true });
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return true;
    throw error;
  }
}

function invalid(reason: string, cause?: unknown): StoreError {
  return new StoreError({
    code: "STORE_LAYOUT_INVALID",
    message: reason,
    ...(cause === undefined ? {} : { cause }),
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
