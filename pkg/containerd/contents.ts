// SPDX-License-Identifier: Apache-2.0
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { contentService, type Info, introspectionService } from "#api/containerd";
import { errorMessage } from "#errors";
import type { Logger } from "#log";
import { type Digest, digestAlgorithm, digestHex, isDigest } from "#oci";
import {
  type BlobFiles,
  type Content,
  type ContentInfo,
  type ContentOrigin,
  createBlobFiles,
  mergeOrigin,
  StoreError,
} from "#store";
import { type ContainerdClient, unavailable } from "./client.ts";
import { createOriginReader, keptConfigOf } from "./content-labels.ts";

type Call = { readonly signal: AbortSignal };

// How long an answer of containerd is believed. A pull asks for stat and open within milliseconds; garbage
// collection runs at its own leisure, and what it removed fails at the open of the file.
const BELIEVED_MS = 2000;
const MAX_BELIEVED = 4096;
// Nodes hold thousands; what is beyond this is served but not listed.
const MAX_CONTENTS = 50_000;
const COMPLAINT_INTERVAL_MS = 60_000;

/** One listed content. */
export interface ListedContent {
  readonly sizeBytes: number;
  readonly origins: readonly ContentOrigin[];
  /** The config that containerd keeps for this manifest when it was told to keep no layer of it. */
  readonly keptConfig?: Digest;
}

/** containerd's content, as far as it belongs to a watched namespace. */
export interface Contents {
  /** Asks containerd; nothing is remembered. */
  info(digest: Digest, call: Call): Promise<ListedContent | undefined>;
  stat(digest: Digest, call: Call): Promise<ContentInfo | undefined>;
  open(digest: Digest, call: Call): Promise<Content | undefined>;
  /** Opens content that the caller knows to be of a watched namespace. */
  openListed(digest: Digest, sizeBytes: number, call: Call): Promise<Content | undefined>;
  /** Every content of the watched namespaces, each once, with the origins of all of them. */
  list(call: Call): Promise<Map<Digest, ListedContent>>;
  /** Forgets what is believed about one digest, or about all. */
  forget(digest?: string): void;
}

export interface ContentsOptions {
  readonly namespaces: readonly string[];
  /** containerd's content root, the folder with `blobs`. Empty: containerd is asked for it. */
  readonly contentPath: string;
  readonly listTimeoutMs: number;
}

export function createContents(
  deps: { readonly client: ContainerdClient; readonly log: Logger },
  options: ContentsOptions,
): Contents {
  const { client, log } = deps;
  const { namespaces, listTimeoutMs } = options;
  const files: BlobFiles = createBlobFiles();
  const believed = new Map<Digest, { readonly sizeBytes: number; readonly untilMs: number }>();
  let contentPath = options.contentPath;
  let complainedMs = Number.NEGATIVE_INFINITY;

  async function find(digest: Digest, { signal }: Call): Promise<Info | undefined> {
    for (const namespace of namespaces) {
      const answer = await client.call(contentService.info, { digest }, { namespace, signal });
      if (answer?.info?.digest === digest) return answer.info;
    }
    return undefined;
  }

  // The file system holds the content of every namespace; only containerd knows whose it is.
  async function sizeOf(digest: Digest, call: Call): Promise<number | undefined> {
    const known = believed.get(digest);
    if (known !== undefined && known.untilMs > performance.now()) return known.sizeBytes;
    believed.delete(digest);
    const found = await find(digest, call);
    if (found === undefined) return undefined;
    const oldest = believed.size >= MAX_BELIEVED ? believed.keys().next().value : undefined;
    if (oldest !== undefined) believed.delete(oldest);
    believed.set(digest, { sizeBytes: found.size, untilMs: performance.now() + BELIEVED_MS });
    return found.size;
  }

  async function pathOf(digest: Digest, call: Call): Promise<string> {
    if (contentPath === "") contentPath = await discoverContentPath(client, call);
    return join(contentPath, "blobs", digestAlgorithm(digest), digestHex(digest));
  }

  // What cannot be read must not be listed: it would be announced, and every peer that asks would ask in vain.
  async function requireFiles(call: Call): Promise<void> {
    if (contentPath === "") contentPath = await discoverContentPath(client, call);
    await read(() => access(join(contentPath, "blobs"), constants.R_OK | constants.X_OK));
  }

  async function openListed(digest: Digest, sizeBytes: number, call: Call): Promise<Content | undefined> {
    const path = await pathOf(digest, call);
    const content = await read(() => files.open(path, call));
    if (content?.sizeBytes === sizeBytes) return content;
    await content?.[Symbol.asyncDispose](); // damaged: better none than bytes of another size
    complain(path);
    return undefined;
  }

  // Now and then garbage collection is quicker than we are; all the time it is a wrong or unmounted content path.
  function complain(path: string): void {
    if (performance.now() - complainedMs < COMPLAINT_INTERVAL_MS) return;
    complainedMs = performance.now();
    log.warn("containerd lists content whose file is absent or has another size", { path });
  }

  return {
    openListed,

    async info(digest, call) {
      const found = await find(digest, call);
      return found && { sizeBytes: found.size, origins: createOriginReader()(found.labels) };
    },

    async stat(digest, call) {
      call.signal.throwIfAborted();
      const sizeBytes = await sizeOf(digest, call);
      if (sizeBytes === undefined) return undefined;
      const path = await pathOf(digest, call);
      const found = await read(() => files.stat(path, digest, call));
      if (found?.sizeBytes === sizeBytes) return found;
      complain(path);
      return undefined;
    },

    async open(digest, call) {
      call.signal.throwIfAborted();
      const sizeBytes = await sizeOf(digest, call);
      return sizeBytes === undefined ? undefined : await openListed(digest, sizeBytes, call);
    },

    async list({ signal }) {
      const readOrigins = createOriginReader();
      const listed = new Map<Digest, ListedContent>();
      for (const namespace of namespaces) {
        const answers = client.stream(
          contentService.list,
          {},
          { namespace, signal, timeoutMs: listTimeoutMs },
        );
        for await (const answer of answers) {
          for (const { digest, size, labels } of answer.info) {
            if (!isDigest(digest) || listed.size >= MAX_CONTENTS) continue;
            const known = listed.get(digest)?.origins ?? [];
            const origins = readOrigins(labels);
            const keptConfig = keptConfigOf(labels);
            listed.set(digest, {
              sizeBytes: size,
              ...(keptConfig === undefined ? {} : { keptConfig }),
              origins:
                known.length === 0 ? origins : origins.reduce<readonly ContentOrigin[]>(mergeOrigin, known),
            });
          }
        }
      }
      if (listed.size > 0) await requireFiles({ signal });
      if (listed.size >= MAX_CONTENTS)
        log.warn("content beyond the limit is not listed", { limit: MAX_CONTENTS });
      return listed;
    },

    forget(digest) {
      if (digest === undefined) believed.clear();
      else believed.delete(digest as Digest);
    },
  };
}

// A file that is there and cannot be read is a fault of the node, not absent content.
async function read<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Error && "syscall" in error)) throw error;
    throw new StoreError({
      code: "STORE_UNAVAILABLE",
      message: `cannot read containerd's content: ${errorMessage(error)}`,
      cause: error,
    });
  }
}

/** Asks containerd where it keeps content, as Spegel does. @throws StoreError STORE_UNAVAILABLE */
async function discoverContentPath(client: ContainerdClient, { signal }: Call): Promise<string> {
  const answer = await client.call(introspectionService.plugins, {}, { signal });
  const plugin = answer?.plugins.find(
    (each) => each.type === "io.containerd.content.v1" && each.id === "content",
  );
  const root = plugin?.exports.get("root");
  if (root === undefined || !root.startsWith("/")) {
    throw unavailable("containerd does not tell where its content is; the content path must be set");
  }
  return root;
}
