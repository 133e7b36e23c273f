// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import type nodeFS from "node:fs/promises";
import { join } from "node:path";
import { errorMessage, systemErrorCode } from "#errors";
import { HostsError } from "./errors.ts";

/** The calls of `node:fs/promises` that are used here. A test passes its own to stop after any of them. */
export type FileSystem = Pick<
  typeof nodeFS,
  | "chmod"
  | "chown"
  | "copyFile"
  | "link"
  | "lstat"
  | "mkdir"
  | "readdir"
  | "readFile"
  | "readlink"
  | "rename"
  | "rm"
  | "symlink"
  | "unlink"
  | "utimes"
  | "writeFile"
>;

/** Something in a folder, with what is needed to compare and to restore it. */
export interface Entry {
  readonly kind: "file" | "directory" | "symlink" | "other";
  readonly device: number;
  readonly inode: number;
  readonly sizeBytes: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeMs: number;
}

/** What lies below a folder, by path relative to it, parents before children. */
export type Tree = ReadonlyMap<string, Entry>;

/** Names that end so are never anybody's but ours: left behind by a run that was cut off. */
export const TEMPORARY_SUFFIX = ".spegel-tmp";

/** More entries, or deeper ones, than any certs.d has: stop before a mistaken folder is rearranged. */
const MAX_TREE_ENTRIES = 10_000;
const MAX_TREE_DEPTH = 8;
/** A hosts.toml beyond this is not read. Real ones have a few hundred bytes. */
export const MAX_HOSTS_FILE_BYTES = 1024 * 1024;

/** A folder on disk: few steps, each of which leaves every file either as it was or as it shall be. */
export interface Disk {
  /** The entry at a path, without following a link; undefined when nothing is there. */
  entry(path: string): Promise<Entry | undefined>;
  /** Everything below a folder but the top-level names in `without`. @throws HostsError HOSTS_TREE_UNSUPPORTED */
  tree(directory: string, without: ReadonlySet<string>): Promise<Tree>;
  /** A text file of at most {@link MAX_HOSTS_FILE_BYTES}; undefined when it is larger. */
  readText(path: string): Promise<string | undefined>;
  /** Where a symbolic link points; undefined when it is none. */
  linkTarget(path: string): Promise<string | undefined>;
  /** sha256 in hex of a file's bytes. */
  hash(path: string): Promise<string>;
  /** True when both are there and are the same file, or files of equal bytes, or links to the same place. */
  isSame(left: string, right: string): Promise<boolean>;
  /** Makes a folder with the parents it needs, like `attributes` when given. */
  makeDirectory(path: string, attributes?: Entry): Promise<void>;
  /** Writes a file through a temporary one beside it, flushed before it takes the name. */
  write(path: string, text: string, mode: number): Promise<void>;
  /** Makes `to` the same file as `from` (a hard link where possible, else a copy), replacing what is there. */
  place(from: string, to: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Removes a folder and all below it, out of sight in one step. */
  removeTree(path: string): Promise<void>;
}

/**
 * @param fs `node:fs/promises`, or a wrapper of it
 * @param signal checked before each step
 */
export function createDisk(fs: FileSystem, signal: AbortSignal): Disk {
  const run = async <T>(what: string, path: string, step: () => Promise<T>): Promise<T> => {
    signal.throwIfAborted();
    try {
      return await step();
    } catch (error) {
      if (systemErrorCode(error) === undefined || error instanceof HostsError) throw error;
      throw new HostsError({
        code: "HOSTS_ACCESS_FAILED",
        message: `${path} cannot be ${what} (${errorMessage(error)})`,
        cause: error,
      });
    }
  };
  const readEntry = async (path: string): Promise<Entry | undefined> => {
    try {
      const stat = await fs.lstat(path);
      return {
        kind: stat.isFile()
          ? "file"
          : stat.isDirectory()
            ? "directory"
            : stat.isSymbolicLink()
              ? "symlink"
              : "other",
        device: stat.dev,
        inode: stat.ino,
        sizeBytes: stat.size,
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        mtimeMs: stat.mtimeMs,
      };
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw error;
    }
  };
  const disk: Disk = {
    entry: (path) => run("examined", path, () => readEntry(path)),
    tree: async (directory, without) => {
      const tree = new Map<string, Entry>();
      const visit = async (below: string, depth: number): Promise<void> => {
        const path = join(directory, below);
        const names = await run("listed", path, () => fs.readdir(path));
        for (const name of names.sort()) {
          if (below === "" && without.has(name)) continue;
          const child = below === "" ? name : `${below}/${name}`;
          const entry = await disk.entry(join(directory, child));
          if (entry === undefined) continue;
          if (tree.size >= MAX_TREE_ENTRIES || depth >= MAX_TREE_DEPTH) {
            throw new HostsError({
              code: "HOSTS_TREE_UNSUPPORTED",
              message: `${directory} has more than ${MAX_TREE_ENTRIES} entries or ${MAX_TREE_DEPTH} levels (at ${child}); it is no certs.d`,
            });
          }
          tree.set(child, entry);
          if (entry.kind === "directory") await visit(child, depth + 1);
        }
      };
      await visit("", 0);
      return tree;
    },
    readText: async (path) => {
      const entry = await disk.entry(path);
      if (entry === undefined || entry.sizeBytes > MAX_HOSTS_FILE_BYTES) return undefined;
      return run("read", path, () => fs.readFile(path, "utf8"));
    },
    linkTarget: async (path) => {
      const entry = await disk.entry(path);
      return entry?.kind === "symlink" ? run("read", path, () => fs.readlink(path)) : undefined;
    },
    hash: (path) =>
      run("read", path, async () => {
        const hash = createHash("sha256");
        for await (const chunk of createReadStream(path, { signal })) hash.update(chunk as Buffer);
        return hash.digest("hex");
      }),
    isSame: async (left, right) => {
      const [a, b] = [await disk.entry(left), await disk.entry(right)];
      if (a === undefined || b === undefined || a.kind !== b.kind) return false;
      if (a.device === b.device && a.inode === b.inode) return true;
      if (a.kind === "symlink") {
        return (await disk.linkTarget(left)) === (await disk.linkTarget(right));
      }
      if (a.kind !== "file" || a.sizeBytes !== b.sizeBytes) return false;
      return (await disk.hash(left)) === (await disk.hash(right));
    },
    makeDirectory: (path, attributes) =>
      run("made", path, async () => {
        await fs.mkdir(path, { recursive: true, mode: 0o755 });
        if (attributes !== undefined) await copyAttributes(fs, path, attributes);
      }),
    write: (path, text, mode) =>
      run("written", path, async () => {
        const temporary = path + TEMPORARY_SUFFIX;
        await fs.rm(temporary, { force: true });
        await fs.writeFile(temporary, text, { flag: "wx", mode: 0o600, flush: true });
        await fs.chmod(temporary, mode);
        await fs.rename(temporary, path);
      }),
    place: (from, to) =>
      run("restored", to, async () => {
        const temporary = to + TEMPORARY_SUFFIX;
        await fs.rm(temporary, { force: true });
        await duplicate(fs, from, temporary, await readEntry(from));
        // rename() of two names of one file does nothing and leaves both.
        await fs.rename(temporary, to);
        await fs.rm(temporary, { force: true });
      }),
    rename: (from, to) => run("renamed", from, () => fs.rename(from, to)),
    remove: (path) => run("removed", path, () => fs.unlink(path)),
    removeTree: (path) =>
      run("removed", path, async () => {
        const hidden = path.endsWith(TEMPORARY_SUFFIX) ? path : path + TEMPORARY_SUFFIX;
        if (hidden !== path) {
          if ((await readEntry(path)) === undefined) return;
          await fs.rm(hidden, { recursive: true, force: true });
          await fs.rename(path, hidden);
        }
        await fs.rm(hidden, { recursive: true, force: true });
      }),
  };
  return disk;
}

async function duplicate(fs: FileSystem, from: string, to: string, entry: Entry | undefined): Promise<void> {
  try {
    await fs.link(from, to);
    return;
  } catch (error) {
    // Another file system, one without links, or a file that only its owner may link.
    const code = systemErrorCode(error);
    if (code !== "EXDEV" && code !== "EPERM" && code !== "EMLINK" && code !== "ENOTSUP") throw error;
  }
  if (entry?.kind === "symlink") {
    await fs.symlink(await fs.readlink(from), to);
  } else if (entry?.kind === "file") {
    await fs.copyFile(from, to);
    await copyAttributes(fs, to, entry);
  } else {
    throw new HostsError({
      code: "HOSTS_TREE_UNSUPPORTED",
      message: `${from} is neither file, folder nor link and cannot be kept`,
    });
  }
}

async function copyAttributes(fs: FileSystem, path: string, entry: Entry): Promise<void> {
  try {
    await fs.chown(path, entry.uid, entry.gid);
  } catch (error) {
    if (systemErrorCode(error) !== "EPERM") throw error; // without CAP_CHOWN the file stays ours
  }
  await fs.chmod(path, entry.mode);
  await fs.utimes(path, new Date(), new Date(entry.mtimeMs));
}
