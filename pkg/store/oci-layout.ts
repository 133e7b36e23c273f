// SPDX-License-Identifier: Apache-2.0
import { createHash, randomUUID } from "node:crypto";
import { type FSWatcher, watch as watchPath } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isAbort, systemErrorCode } from "#errors";
import { type Digest, digestAlgorithm, digestHex, isDigest } from "#oci";
import { createBlobFiles } from "./blob-file.ts";
import { createChangeFeed } from "./change-feed.ts";
import type { ContentEntry, StoreChange, WritableContentStore } from "./content-store.ts";
import { StoreError } from "./errors.ts";
import { createLayoutIndex } from "./layout-index.ts";
import { createLayoutOrigins } from "./layout-origins.ts";
import { mismatch, missing } from "./memory.ts";

const LAYOUT_VERSION = "1.0.0";
const ALGORITHMS = ["sha256", "sha512"] as const;
// Contents beyond this are served but not listed.
const MAX_CONTENTS = 500_000;
const WRITE_STEP_BYTES = 1024 * 1024;
const DEBOUNCE_MS = 50;
const ABANDONED_MS = 24 * 60 * 60 * 1000;

export interface OCILayoutOptions {
  /** Created when absent. An existing folder must be a layout or empty. */
  readonly directory: string;
  /** Looks for changes that no notification told of, while somebody watches; default 30 s. */
  readonly rescanIntervalMs?: number;
}

/**
 * Opens a folder in the form of the OCI image layout 1.0.0 as a store. Several processes may use one folder.
 *
 * A name is a manifest entry of index.json with the annotation `org.opencontainers.image.ref.name` (or containerd's
 * `io.containerd.image.name`); a plain tag, as skopeo writes it, is listed as it is. Blobs appear by rename, so a
 * blob that is there is complete. Origins are kept in the file `spegel-origins`.
 *
 * @throws StoreError STORE_LAYOUT_INVALID when the folder is something else, STORE_UNAVAILABLE when it cannot be used
 */
export async function openOCILayoutStore(
  options: OCILayoutOptions,
  { signal }: { readonly signal: AbortSignal },
): Promise<WritableContentStore> {
  const { directory, rescanIntervalMs = 30_000 } = options;
  signal.throwIfAborted();
  await guard(`open the layout in ${directory}`, () => prepare(directory));
  const blobs = createBlobFiles();
  const index = createLayoutIndex(directory);
  const origins = createLayoutOrigins(directory);
  const feed = createChangeFeed();

  const blobPath = (digest: Digest): string =>
    join(directory, "blobs", digestAlgorithm(digest), digestHex(digest));

  async function contents(stop: AbortSignal): Promise<readonly ContentEntry[]> {
    await origins.refresh();
    const listed: ContentEntry[] = [];
    for (const algorithm of ALGORITHMS) {
      stop.throwIfAborted();
      for (const file of await readdir(join(directory, "blobs", algorithm), { withFileTypes: true })) {
        const digest = `${algorithm}:${file.name}`;
        if (!file.isFile() || !isDigest(digest)) continue;
        if (listed.length >= MAX_CONTENTS) return listed;
        listed.push({ digest, origins: origins.of(digest) });
      }
    }
    return listed;
  }

  return {
    name: "oci-layout",

    resolve: (name, { signal: stop }) =>
      guard(`resolve ${name}`, async () => {
        const images = await index.images({ signal: stop });
        return images.find((each) => each.name === name)?.digest;
      }),

    stat: (digest, { signal: stop }) =>
      guard(`stat ${digest}`, () => blobs.stat(blobPath(digest), digest, { signal: stop })),

    open: (digest, { signal: stop }) =>
      guard(`open ${digest}`, () => blobs.open(blobPath(digest), { signal: stop })),

    inventory: ({ signal: stop }) =>
      guard("list the layout", async () => ({
        images: await index.images({ signal: stop }),
        contents: await contents(stop),
      })),

    async *watch({ signal: stop }) {
      if (stop.aborted) return;
      using _observer = observe(directory, rescanIntervalMs, (change) => feed.publish(change));
      yield* feed.watch({ signal: stop });
    },

    put: (digest, source, { signal: stop, origin }) =>
      guard(`put ${digest}`, async () => {
        const path = blobPath(digest);
        await mkdir(join(directory, "blobs", digestAlgorithm(digest)), { recursive: true });
        const temporary = join(directory, "ingest", randomUUID());
        try {
          await writeHashed(temporary, digest, source, stop);
          await rename(temporary, path);
        } finally {
          await rm(temporary, { force: true });
        }
        await syncFolder(join(path, ".."));
        if (origin !== undefined) await origins.append(digest, origin);
        feed.publish({ kind: "added", content: { digest, origins: origins.of(digest) } });
      }),

    tag: (name, digest, { signal: stop }) =>
      guard(`tag ${name}`, async () => {
        const info = await blobs.stat(blobPath(digest), digest, { signal: stop });
        if (info === undefined) throw missing(digest);
        await index.tag(name, info, { signal: stop });
        await syncFolder(directory);
        feed.publish({ kind: "changed" });
      }),
  };
}

async function prepare(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const marker = join(directory, "oci-layout");
  const present = await readFile(marker, "utf8").catch((error: unknown) => {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw error;
  });
  if (present === undefined) {
    const names = await readdir(directory);
    if (names.includes("oci-layout")) return await prepare(directory); // another process was just as quick
    if (names.some((name) => name !== "lost+found" && !name.startsWith("oci-layout."))) {
      throw invalid(`${directory} has no oci-layout file and is not empty`);
    }
    const temporary = `${marker}.${randomUUID()}`;
    await writeFile(temporary, JSON.stringify({ imageLayoutVersion: LAYOUT_VERSION }));
    await rename(temporary, marker);
  } else if (versionOf(present) !== LAYOUT_VERSION) {
    throw invalid(`${marker} does not say imageLayoutVersion ${LAYOUT_VERSION}`);
  }
  for (const algorithm of ALGORITHMS) await mkdir(join(directory, "blobs", algorithm), { recursive: true });
  await mkdir(join(directory, "ingest"), { recursive: true });
  await writeFile(join(directory, "index.json"), EMPTY_INDEX, { flag: "wx" }).catch((error: unknown) => {
    if (systemErrorCode(error) !== "EEXIST") throw error;
  });
  await removeAbandoned(join(directory, "ingest"));
}

const EMPTY_INDEX =
  '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}';

function versionOf(text: string): unknown {
  try {
    const document = JSON.parse(text) as { imageLayoutVersion?: unknown } | null;
    return document?.imageLayoutVersion;
  } catch {
    return undefined;
  }
}

// What a process that died was writing. Younger files may belong to a process that lives.
async function removeAbandoned(ingestFolder: string): Promise<void> {
  for (const name of await readdir(ingestFolder)) {
    const path = join(ingestFolder, name);
    const stats = await stat(path).catch(() => undefined);
    if (stats !== undefined && Date.now() - stats.mtimeMs > ABANDONED_MS) await rm(path, { force: true });
  }
}

async function writeHashed(
  path: string,
  digest: Digest,
  source: AsyncIterable<Uint8Array> | Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  const hash = createHash(digestAlgorithm(digest));
  await using file = await open(path, "wx", 0o444);
  for await (const chunk of source instanceof Uint8Array ? slices(source) : source) {
    signal.throwIfAborted();
    hash.update(chunk);
    await file.writeFile(chunk);
  }
  const actual = hash.digest("hex");
  if (actual !== digestHex(digest)) throw mismatch(digest, actual);
  signal.throwIfAborted();
  await file.sync();
}

function* slices(bytes: Uint8Array): Generator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += WRITE_STEP_BYTES) {
    yield bytes.subarray(start, start + WRITE_STEP_BYTES);
  }
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

// Notifications when the kernel gives them, and a look at the folder from time to time because it may not.
function observe(
  directory: string,
  rescanIntervalMs: number,
  publish: (change: StoreChange) => void,
): Disposable {
  const folders = [directory, ...ALGORITHMS.map((algorithm) => join(directory, "blobs", algorithm))];
  const watchers: FSWatcher[] = [];
  let pending: NodeJS.Timeout | undefined;
  let fingerprint: string | undefined;

  const notify = (): void => {
    pending ??= setTimeout(() => {
      pending = undefined;
      publish({ kind: "changed" });
    }, DEBOUNCE_MS);
  };
  const rescan = async (): Promise<void> => {
    const parts = await Promise.all([join(directory, "index.json"), ...folders.slice(1)].map(versionOfPath));
    const current = parts.join(" ");
    if (fingerprint !== undefined && fingerprint !== current) notify();
    fingerprint = current;
  };
  for (const folder of folders) {
    try {
      watchers.push(watchPath(folder, { persistent: false }, notify).on("error", () => {}));
    } catch {
      // Out of inotify watches: the rescan finds the change.
    }
  }
  const timer = setInterval(() => void rescan(), rescanIntervalMs).unref();
  void rescan();
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      clearTimeout(pending);
      for (const watcher of watchers) watcher.close();
    },
  };
}

async function versionOfPath(path: string): Promise<string> {
  const stats = await stat(path, { bigint: true }).catch(() => undefined);
  return stats === undefined ? "absent" : `${stats.ino}/${stats.size}/${stats.mtimeNs}`;
}

// The file system's own errors become the store's, once; ours and those of the caller's signal and bytes pass.
async function guard<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof StoreError || isAbort(error) || !isFileError(error)) throw error;
    throw new StoreError({ code: "STORE_UNAVAILABLE", message: `cannot ${action}`, cause: error });
  }
}

function isFileError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}

function invalid(reason: string): StoreError {
  return new StoreError({ code: "STORE_LAYOUT_INVALID", message: reason });
}
