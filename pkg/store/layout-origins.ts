// SPDX-License-Identifier: Apache-2.0
import { appendFile, type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "#errors";
import { type Digest, isDigest, parseImageReference } from "#oci";
import type { ContentOrigin } from "./content-store.ts";
import { mergeOrigin } from "./origins.ts";

// Lines beyond this are not read; 64 MiB are about 500,000 origins.
const MAX_BYTES = 64 * 1024 * 1024;
const STEP_BYTES = 256 * 1024;
const MAX_LINE_LENGTH = 1024;

/**
 * Where the blobs of a layout came from: a text file beside index.json with lines `<digest> <registry>/<repository>`.
 *
 * Lines are only ever appended, each with one write, so any number of processes may add to it without a lock.
 */
export interface LayoutOrigins {
  of(digest: Digest): readonly ContentOrigin[];
  /** Reads what was appended since the last time. */
  refresh(): Promise<void>;
  append(digest: Digest, origin: ContentOrigin): Promise<void>;
}

export function createLayoutOrigins(directory: string): LayoutOrigins {
  const path = join(directory, "spegel-origins");
  const origins = new Map<Digest, readonly ContentOrigin[]>();
  let offset = 0;
  let rest = "";
  let refreshing: Promise<void> | undefined;

  function take(line: string): void {
    const space = line.indexOf(" ");
    const digest = line.slice(0, space);
    if (line.length > MAX_LINE_LENGTH || !isDigest(digest)) return;
    const origin = parseOrigin(line.slice(space + 1));
    if (origin !== undefined) origins.set(digest, mergeOrigin(origins.get(digest) ?? [], origin));
  }

  async function readAppended(): Promise<void> {
    let handle: FileHandle;
    try {
      handle = await open(path, "r");
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") return;
      throw error;
    }
    await using file = handle;
    const bytes = Buffer.allocUnsafe(STEP_BYTES);
    while (offset < MAX_BYTES) {
      const { bytesRead } = await file.read(bytes, 0, STEP_BYTES, offset);
      if (bytesRead === 0) return;
      offset += bytesRead;
      const lines = (rest + bytes.toString("latin1", 0, bytesRead)).split("\n");
      rest = (lines.pop() ?? "").slice(0, MAX_LINE_LENGTH + 1);
      for (const line of lines) take(line);
    }
  }

  return {
    of: (digest) => origins.get(digest) ?? [],
    refresh() {
      refreshing ??= readAppended().finally(() => {
        refreshing = undefined;
      });
      return refreshing;
    },
    async append(digest, origin) {
      const merged = mergeOrigin(origins.get(digest) ?? [], origin);
      if (merged === origins.get(digest) || parseOrigin(originText(origin)) === undefined) return;
      await appendFile(path, `${digest} ${originText(origin)}\n`);
      origins.set(digest, merged);
    },
  };
}

function originText({ registry, repository }: ContentOrigin): string {
  return `${registry}/${repository}`;
}

function parseOrigin(text: string): ContentOrigin | undefined {
  try {
    const { registry, repository } = parseImageReference(`${text}:any`);
    return `${registry}/${repository}` === text ? { registry, repository } : undefined;
  } catch {
    return undefined;
  }
}
