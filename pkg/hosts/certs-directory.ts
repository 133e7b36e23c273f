// SPDX-License-Identifier: Apache-2.0
import { dirname, join } from "node:path";
import type { Logger } from "#log";
import { type Disk, type Entry, TEMPORARY_SUFFIX, type Tree } from "./disk.ts";
import { HostsError } from "./errors.ts";
import { looksGenerated, parseHostsFile } from "./hosts-file.ts";
import { type GeneratedRecord, hashText, RECORD_NAME, readRecord } from "./record.ts";

/** Spegel's name for the folder that holds what was there before. */
const BACKUP_NAME = "_backup";
/** Beside a file of the backup: an edited copy of a generated file, and the file that a newer one took the place of. */
const EDITED_SUFFIX = ".spegel-edited";
const REPLACED_SUFFIX = ".spegel-replaced";
export const HOSTS_FILE_NAME = "hosts.toml";

/** What a file of the live folder is to us. */
type Origin =
  /** The same as in the backup: we may remove it, and put it back. */
  | "original"
  /** Written by us, or by Spegel. */
  | "generated"
  /** Put there by somebody since: never lost. */
  | "foreign";

/**
 * containerd's `certs.d` with its backup.
 *
 * `_backup` is complete once it exists: it is built under another name. Its files are hard links of the originals, so
 * that nothing moves while it is made and the very same files come back. `_backup` always means: what would be there
 * without us.
 */
export interface CertsDirectory {
  readonly root: string;
  readonly backup: string;
  readonly recordPath: string;
  readonly record: GeneratedRecord | undefined;
  /** Live entries, without the backup and the record. */
  live(): Promise<Tree>;
  /** Entries of the backup. */
  originals(): Promise<Tree>;
  originOf(path: string, entry: Entry): Promise<Origin>;
}

/** Finishes what an interrupted run left behind, and reads the record. */
export async function openCertsDirectory(disk: Disk, root: string): Promise<CertsDirectory> {
  const backup = join(root, BACKUP_NAME);
  const recordPath = join(root, RECORD_NAME);
  const done = restoredName(backup);
  if ((await disk.entry(done)) !== undefined) {
    await removeIfThere(disk, recordPath);
    await disk.removeTree(done);
  }
  await disk.removeTree(backup + TEMPORARY_SUFFIX);
  await removeIfThere(disk, recordPath + TEMPORARY_SUFFIX);
  const entry = await disk.entry(backup);
  if (entry !== undefined && entry.kind !== "directory") {
    throw new HostsError({
      code: "HOSTS_TREE_UNSUPPORTED",
      message: `${backup} is a ${entry.kind}, no folder`,
    });
  }
  const reserved = new Set([BACKUP_NAME, RECORD_NAME]);
  for (const [base, without] of [[root, reserved] as const, [backup, new Set<string>()] as const]) {
    if ((await disk.entry(base)) === undefined) continue;
    for (const path of (await disk.tree(base, without)).keys()) {
      if (path.endsWith(TEMPORARY_SUFFIX)) await disk.removeTree(join(base, path));
    }
  }
  const record = await readRecord(disk, recordPath);
  return {
    root,
    backup,
    recordPath,
    record,
    live: () => disk.tree(root, reserved),
    originals: async () =>
      (await disk.entry(backup)) === undefined ? new Map() : disk.tree(backup, new Set()),
    originOf: async (path, { kind }) => {
      if (await disk.isSame(join(root, path), join(backup, path))) return "original";
      if (kind !== "file" || !isHostsFile(path)) return "foreign";
      const text = await disk.readText(join(root, path));
      if (text === undefined) return "foreign";
      const isGenerated =
        record === undefined ? looksGenerated(text) : record.files[path]?.includes(hashText(text));
      return isGenerated === true ? "generated" : "foreign";
    },
  };
}

export async function hasBackup(disk: Disk, certs: CertsDirectory): Promise<boolean> {
  return (await disk.entry(certs.backup)) !== undefined;
}

/** Makes the backup of everything that is not ours, unless there is one. It appears in one step, complete. */
export async function ensureBackup(disk: Disk, certs: CertsDirectory): Promise<void> {
  if (await hasBackup(disk, certs)) return;
  const partial = certs.backup + TEMPORARY_SUFFIX;
  const live = await certs.live();
  await disk.makeDirectory(partial);
  for (const [path, entry] of live) {
    if (entry.kind === "directory") {
      await disk.makeDirectory(join(partial, path), entry);
      continue;
    }
    // The backup is gone but the record is not: what we wrote is nothing to come back to.
    const isOurs = certs.record !== undefined && (await certs.originOf(path, entry)) === "generated";
    if (!isOurs) await disk.place(join(certs.root, path), join(partial, path));
  }
  await disk.rename(partial, certs.backup);
}

/** Takes the backup away once everything it holds is in place again. */
export async function dropBackup(disk: Disk, certs: CertsDirectory): Promise<void> {
  const done = restoredName(certs.backup);
  await disk.rename(certs.backup, done);
  await removeIfThere(disk, certs.recordPath);
  await disk.removeTree(done);
}

/**
 * Takes foreign files that stand where we write into the backup, so that they come back with it.
 *
 * An edited copy of a generated file still names our mirrors and would be no original: it is kept beside. Anything
 * else is what somebody wants there now and takes the place of what the backup held, which is kept beside once.
 *
 * @param isOurs which paths we write, or put back
 */
export async function adoptForeign(
  disk: Disk,
  certs: CertsDirectory,
  isOurs: (path: string) => boolean,
  targets: readonly string[],
  log: Logger,
): Promise<void> {
  const live = await certs.live();
  for (const [path, entry] of live) {
    if (entry.kind === "directory" || !isOurs(path)) continue;
    if ((await certs.originOf(path, entry)) !== "foreign") continue;
    const source = join(certs.root, path);
    const isEdited = isHostsFile(path) && (await namesTarget(disk, source, entry, targets));
    const kept = isEdited ? path + EDITED_SUFFIX : path;
    log.warn("Keeping a file that was changed since the last run in the backup.", { path, as: kept });
    if (!isEdited) await clearPlace(disk, certs.backup, path);
    const parent = dirname(kept);
    if (parent !== "." && (await disk.entry(join(certs.backup, parent))) === undefined) {
      await disk.makeDirectory(join(certs.backup, parent), live.get(parent));
    }
    await disk.place(source, join(certs.backup, kept));
  }
}

/** Whether a path is one of these files, or is in the way: a file where a folder must be, or the other way round. */
export function collidesWith(
  files: readonly string[],
  folders: readonly string[] = [],
): (path: string) => boolean {
  const ours = new Set(files);
  const parents = new Set([...folders, ...files.flatMap(parentsOf)]);
  return (path) => ours.has(path) || parents.has(path) || parentsOf(path).some((parent) => ours.has(parent));
}

function parentsOf(path: string): string[] {
  const parts = path.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"));
}

/** True for names that only the backup has, and that become live again with it. */
export function isKeptBeside(path: string): boolean {
  return path.split("/").some((name) => name.endsWith(EDITED_SUFFIX) || name.endsWith(REPLACED_SUFFIX));
}

/** Moves away what the backup holds at a path, or in place of one of its parents. */
async function clearPlace(disk: Disk, backup: string, path: string): Promise<void> {
  const parts = path.split("/");
  for (let depth = 1; depth <= parts.length; depth++) {
    const place = join(backup, ...parts.slice(0, depth));
    const entry = await disk.entry(place);
    if (entry === undefined) return;
    if (depth < parts.length && entry.kind === "directory") continue;
    await disk.removeTree(place + REPLACED_SUFFIX);
    await disk.rename(place, place + REPLACED_SUFFIX);
    return;
  }
}

async function namesTarget(
  disk: Disk,
  path: string,
  entry: Entry,
  targets: readonly string[],
): Promise<boolean> {
  const text = entry.kind === "file" ? await disk.readText(path) : undefined;
  if (text === undefined) return false;
  const file = await parseHostsFile(text);
  return "hosts" in file && file.hosts.some(([url]) => targets.includes(url.replace(/\/$/, "")));
}

function isHostsFile(path: string): boolean {
  return path.split("/").length === 2 && path.endsWith(`/${HOSTS_FILE_NAME}`);
}

function restoredName(backup: string): string {
  return `${backup}.spegel-done`;
}

async function removeIfThere(disk: Disk, path: string): Promise<void> {
  if ((await disk.entry(path)) !== undefined) await disk.remove(path);
}
