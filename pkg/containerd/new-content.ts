// SPDX-License-Identifier: Apache-2.0
import { createSemaphore, sleep, type TaskGroup } from "#async";
import { type Digest, isDigest } from "#oci";
import type { ContentEntry } from "#store";
import type { Contents } from "./contents.ts";

const MAX_WAITING = 1024;
const MAX_CONCURRENT = 8;
// CRI sets the source label after the commit, usually within 20 ms. Together 750 ms.
const LABEL_RETRIES_MS: readonly number[] = [10, 20, 40, 80, 100, 100, 100, 100, 100, 100];

/** Turns `/content/create` of containerd 2.x into entries with their origins. */
export interface NewContent {
  /** @returns false when too many wait already; the caller then asks for a new inventory */
  offer(digest: string): boolean;
}

/**
 * @param deps.report is given each content once, with its origins as soon as containerd tells them, at the latest
 * without any when the retries are used up
 */
export function createNewContent(deps: {
  readonly contents: Contents;
  readonly tasks: TaskGroup;
  readonly report: (content: ContentEntry) => void;
  /** Called when containerd could not be asked; an inventory will find the content. */
  readonly giveUp: () => void;
}): NewContent {
  const places = createSemaphore(MAX_CONCURRENT);
  const waiting = new Set<string>();

  async function follow(digest: Digest, signal: AbortSignal): Promise<void> {
    using _place = await places.acquire({ signal });
    for (const delayMs of [...LABEL_RETRIES_MS, 0]) {
      const found = await deps.contents.info(digest, { signal });
      if (found === undefined) return; // removed again
      if (found.origins.length > 0 || delayMs === 0) return deps.report({ digest, origins: found.origins });
      await sleep(delayMs, { signal });
    }
  }

  return {
    offer(digest) {
      if (!isDigest(digest) || waiting.has(digest)) return true;
      if (waiting.size >= MAX_WAITING) return false;
      waiting.add(digest);
      deps.tasks.run("new content", async (signal) => {
        try {
          await follow(digest, signal);
        } catch (error) {
          if (signal.aborted) throw error;
          deps.giveUp();
        } finally {
          waiting.delete(digest);
        }
      });
      return true;
    },
  };
}
