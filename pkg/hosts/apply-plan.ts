// SPDX-License-Identifier: Apache-2.0
import { dirname, join } from "node:path";
import { DEFAULT_UPSTREAM } from "#nodelayout";
import { type CertsDirectory, HOSTS_FILE_NAME } from "./certs-directory.ts";
import { type Disk, TEMPORARY_SUFFIX, type Tree } from "./disk.ts";
import type { HostsPlan } from "./plan.ts";

/**
 * Makes the live folder what the plan says: first what is added or changed, then what goes. Foreign files are not
 * touched. Repeating it, whole or after an interruption, gives the same.
 *
 * At every moment containerd reads for a registry what it read before or what it shall read: a registry's folder
 * appears and goes as a whole, and in a folder that is there `hosts.toml` changes last, in one step.
 */
export async function applyPlan(disk: Disk, certs: CertsDirectory, plan: HostsPlan): Promise<void> {
  const originals = await certs.originals();
  const paths = [...plan.kept, ...plan.generated.keys()].sort(inOrder);
  for (const [top, group] of Map.groupBy(paths, (path) => path.split("/")[0] as string)) {
    const place = join(certs.root, top);
    const isFolder = group.some((path) => path !== top) || originals.get(top)?.kind === "directory";
    await makeWay(disk, place, isFolder);
    if (isFolder && (await disk.entry(place)) === undefined) {
      const staged = place + TEMPORARY_SUFFIX;
      await disk.removeTree(staged);
      await fill(disk, certs, plan, originals, top, group, staged);
      await disk.rename(staged, place);
    } else {
      await fill(disk, certs, plan, originals, top, group, place);
    }
  }
  await removeOthers(disk, certs, plan, originals);
}

/** Puts the files of one top-level name below `base`. */
async function fill(
  disk: Disk,
  certs: CertsDirectory,
  plan: HostsPlan,
  originals: Tree,
  top: string,
  group: readonly string[],
  base: string,
): Promise<void> {
  const placeOf = (path: string): string => join(base, path.slice(top.length));
  const ensureFolder = async (path: string): Promise<void> => {
    if (path === ".") return;
    await ensureFolder(dirname(path));
    await makeWay(disk, placeOf(path), true);
    if ((await disk.entry(placeOf(path))) !== undefined) return;
    const original = originals.get(path);
    await disk.makeDirectory(placeOf(path), original?.kind === "directory" ? original : undefined);
  };
  for (const path of group) {
    const to = placeOf(path);
    const generated = plan.generated.get(path);
    if (generated === undefined && originals.get(path)?.kind === "directory") {
      await ensureFolder(path);
      continue;
    }
    await ensureFolder(dirname(path));
    if (generated === undefined) {
      const from = join(certs.backup, path);
      if (await disk.isSame(from, to)) continue;
      await makeWay(disk, to, false);
      await disk.place(from, to);
    } else {
      await makeWay(disk, to, false);
      const live = await disk.entry(to);
      const isThere = live?.kind === "file" && live.mode === generated.mode;
      if (isThere && (await disk.readText(to)) === generated.text) continue;
      await disk.write(to, generated.text, generated.mode);
    }
  }
}

async function removeOthers(
  disk: Disk,
  certs: CertsDirectory,
  plan: HostsPlan,
  originals: Tree,
): Promise<void> {
  const live = await certs.live();
  const wanted = new Set(plan.kept);
  for (const path of plan.generated.keys()) wanted.add(path).add(dirname(path));
  // Folders that we made, or that came from the backup; empty ones of others stay.
  const folders = new Set(Object.keys(certs.record?.files ?? {}).map((path) => dirname(path)));
  const goes = new Set<string>();
  for (const [path, entry] of live) {
    if (entry.kind === "directory" || wanted.has(path)) continue;
    if ((await certs.originOf(path, entry)) === "foreign") continue;
    goes.add(path);
    folders.add(dirname(path));
  }
  // Children before parents: a folder goes when all that is in it goes.
  const below = [...live].reverse();
  for (const [path, { kind }] of below) {
    const mayGo = folders.has(path) || originals.get(path)?.kind === "directory";
    if (kind !== "directory" || wanted.has(path) || !mayGo) continue;
    if (below.every(([child]) => !child.startsWith(`${path}/`) || goes.has(child))) goes.add(path);
  }
  for (const [path, { kind }] of live) {
    if (!goes.has(path) || goes.has(dirname(path))) continue;
    if (kind === "directory") await disk.removeTree(join(certs.root, path));
    else await disk.remove(join(certs.root, path));
  }
}

/** Removes what is no folder where one must be, and a folder where a file must be. All of it is in the backup. */
async function makeWay(disk: Disk, place: string, forFolder: boolean): Promise<void> {
  const entry = await disk.entry(place);
  if (entry === undefined || (entry.kind === "directory") === forFolder) return;
  if (entry.kind === "directory") await disk.removeTree(place);
  else await disk.remove(place);
}

/**
 * Parents before children, a folder's hosts.toml after its other files, which it may name, and `_default` at the end:
 * until then a registry that is about to get a folder of its own reads the old one.
 */
function inOrder(a: string, b: string): number {
  const rank = (path: string): number =>
    (path.split("/")[0] === DEFAULT_UPSTREAM ? 2 : 0) + (path.endsWith(`/${HOSTS_FILE_NAME}`) ? 1 : 0);
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  return a < b ? -1 : a > b ? 1 : 0;
}
