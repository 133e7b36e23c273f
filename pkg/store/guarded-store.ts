// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { fstatSync } from "node:fs";
import { createTaskGroup } from "#async";
import { type Digest, digestAlgorithm, digestHex } from "#oci";
import { hashFile } from "#transfer";
import { createChangeFeed } from "./change-feed.ts";
import type { Content, ContentStore } from "./content-store.ts";

/** A store that stops giving content whose bytes were found to be wrong. */
export interface GuardedStore extends ContentStore, AsyncDisposable {
  /** Content that is present and wrong; it is neither served nor listed. */
  corruptCount(): number;
  /** Resolves when all content that was opened so far has been checked. */
  checked(): Promise<void>;
}

export interface GuardedStoreOptions {
  /** Called once for each content that does not hash to its digest. */
  onCorrupt(digest: Digest): void;
  /** Digests known to be good that are remembered; the oldest are checked again. Default 20,000. */
  readonly maxRemembered?: number;
  /** Checks that wait; more are left to a later open. Default 256. */
  readonly maxWaiting?: number;
}

/**
 * Checks each content once, after it was opened for the first time: a blob that rotted on disk is served once at
 * most, and from then on is absent from look-ups, inventory and announcements. One check at a time.
 *
 * Content that was replaced (another file, or the same with another size or time) is trusted again and checked again.
 */
export function createGuardedStore(store: ContentStore, options: GuardedStoreOptions): GuardedStore {
  const maxRemembered = options.maxRemembered ?? 20_000;
  const maxWaiting = options.maxWaiting ?? 256;
  const good = new Set<Digest>();
  const corrupt = new Map<Digest, string>();
  const waiting = new Set<Digest>();
  const tasks = createTaskGroup();
  const feed = createChangeFeed();
  let running: Promise<void> = Promise.resolve();

  function remember(digest: Digest): void {
    good.add(digest);
    if (good.size > maxRemembered) good.delete(good.values().next().value as Digest);
  }

  function checkLater(digest: Digest): void {
    if (good.has(digest) || waiting.has(digest) || waiting.size >= maxWaiting || tasks.signal.aborted) return;
    waiting.add(digest);
    const before = running;
    const done = Promise.withResolvers<void>();
    running = done.promise;
    tasks.run("check content", async (signal) => {
      await before;
      try {
        await check(digest, signal);
      } catch {
        // Unreadable now: it stays unchecked, and the next open asks for a check again.
      } finally {
        waiting.delete(digest);
        done.resolve();
      }
    });
  }

  async function check(digest: Digest, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await using content = await store.open(digest, { signal });
    if (content === undefined) return;
    if (await hasDigest(content, digest, signal)) return remember(digest);
    corrupt.set(digest, identityOf(content));
    options.onCorrupt(digest);
    feed.publish({ kind: "changed" });
  }

  /** True while the content that was found wrong is still the one that is there. */
  async function isCorrupt(digest: Digest, signal: AbortSignal): Promise<boolean> {
    const known = corrupt.get(digest);
    if (known === undefined) return false;
    await using content = await store.open(digest, { signal });
    if (content !== undefined && identityOf(content) === known) return true;
    corrupt.delete(digest);
    return false;
  }

  return {
    name: store.name,
    corruptCount: () => corrupt.size,
    checked: () => running,
    async resolve(name, { signal }) {
      const digest = await store.resolve(name, { signal });
      return digest !== undefined && (await isCorrupt(digest, signal)) ? undefined : digest;
    },
    async stat(digest, { signal }) {
      return (await isCorrupt(digest, signal)) ? undefined : store.stat(digest, { signal });
    },
    async open(digest, { signal }) {
      if (await isCorrupt(digest, signal)) return undefined;
      const content = await store.open(digest, { signal });
      if (content === undefined || good.has(digest)) return content;
      return {
        ...content,
        async [Symbol.asyncDispose]() {
          await content[Symbol.asyncDispose]();
          checkLater(digest);
        },
      };
    },
    async inventory({ signal }) {
      const inventory = await store.inventory({ signal });
      const wrong = new Set<Digest>();
      for (const digest of [...corrupt.keys()]) if (await isCorrupt(digest, signal)) wrong.add(digest);
      if (wrong.size === 0) return inventory;
      return {
        images: inventory.images.filter((image) => !wrong.has(image.digest)),
        contents: inventory.contents.filter((content) => !wrong.has(content.digest)),
      };
    },
    async *watch({ signal }) {
      const stop = new AbortController();
      const both = AbortSignal.any([signal, stop.signal]);
      const sources = [store.watch({ signal: both })[Symbol.asyncIterator](), feed.watch({ signal: both })];
      // Both are subscribed before the first wait.
      const next = sources.map((source) => source.next());
      try {
        for (;;) {
          const { index, result } = await Promise.race(
            next.map(async (each, index) => ({ index, result: await each })),
          );
          if (result.done) return;
          const source = sources[index];
          if (source !== undefined) next[index] = source.next();
          yield result.value;
        }
      } finally {
        stop.abort();
        await Promise.allSettled(next);
      }
    },
    [Symbol.asyncDispose]: () => tasks[Symbol.asyncDispose](),
  };
}

async function hasDigest(content: Content, digest: Digest, signal: AbortSignal): Promise<boolean> {
  const algorithm = digestAlgorithm(digest);
  if (content.kind === "memory") {
    return createHash(algorithm).update(content.bytes).digest("hex") === digestHex(digest);
  }
  // Other algorithms are rare and containerd has checked them when it stored them.
  if (algorithm !== "sha256") return true;
  const { size } = fstatSync(content.fd);
  return (
    size === content.sizeBytes &&
    (await hashFile(content.fd, content.sizeBytes, { signal })) === digestHex(digest)
  );
}

function identityOf(content: Content): string {
  if (content.kind === "memory") return `${content.sizeBytes}`;
  const { ino, size, mtimeMs, ctimeMs } = fstatSync(content.fd);
  return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
}
