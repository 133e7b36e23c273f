// SPDX-License-Identifier: Apache-2.0
import { dirname, join, resolve } from "node:path";
import type { TomlTable } from "smol-toml";
import type { Logger } from "#log";
import { DEFAULT_UPSTREAM } from "#nodelayout";
import { type CertsDirectory, HOSTS_FILE_NAME, isKeptBeside } from "./certs-directory.ts";
import { type Disk, MAX_HOSTS_FILE_BYTES, type Tree } from "./disk.ts";
import { formatHostsFile, type HostsFile, type MirrorHosts, parseHostsFile } from "./hosts-file.ts";
import { directoriesOf, isRegistryDirectory, type MirroredRegistry } from "./mirror-url.ts";

/** What the folder shall hold. Paths are relative to it. */
export interface HostsPlan {
  readonly generated: ReadonlyMap<string, { readonly text: string; readonly mode: number }>;
  /** Paths of the backup, folders included, that are live as well. */
  readonly kept: ReadonlySet<string>;
}

export interface MirrorSettings extends MirrorHosts {
  readonly registries: readonly MirroredRegistry[];
  /** Whether `_default` is written too. */
  readonly isWildcard: boolean;
  readonly prependExisting: boolean;
}

const EMPTY: HostsFile = { root: {}, hosts: [] };

/** Spegel's layout: a folder for each registry, `_default` for all others, nothing else stays. */
export async function planReplacement(
  disk: Disk,
  certs: CertsDirectory,
  settings: MirrorSettings,
): Promise<HostsPlan> {
  const generated = new Map<string, { text: string; mode: number }>();
  for (const [directory, server] of serversOf(settings)) {
    const path = hostsFileOf(directory);
    const previous = await disk.entry(join(certs.backup, path));
    const mode = modeOf(settings, previous?.kind === "file" ? previous.mode : undefined);
    generated.set(path, { text: formatHostsFile(settings, server, EMPTY), mode });
  }
  return { generated, kept: new Set() };
}

/** The paths that {@link planReplacement} writes. */
export function replacedPaths(settings: MirrorSettings): string[] {
  return [...serversOf(settings).keys()].map(hostsFileOf);
}

function serversOf(settings: MirrorSettings): Map<string, string | undefined> {
  const servers = new Map<string, string | undefined>(
    settings.registries.map(({ host, server }) => [host, server]),
  );
  return settings.isWildcard ? servers.set(DEFAULT_UPSTREAM, undefined) : servers;
}

function hostsFileOf(directory: string): string {
  return `${directory}/${HOSTS_FILE_NAME}`;
}

/**
 * Everything that was there stays in use, with our targets asked first.
 *
 * A registry's folder shadows `_default`, so with a wildcard each of them gets our targets. A folder that cannot be
 * read as containerd would (a link, a file too large) stays as it is: pulls go on, without the mirror.
 */
export async function planPrepend(
  disk: Disk,
  certs: CertsDirectory,
  settings: MirrorSettings,
  log: Logger,
): Promise<HostsPlan> {
  const originals = await certs.originals();
  const servers = new Map<string, string | undefined>();
  for (const { host, server } of settings.registries) {
    const names = directoriesOf(host);
    servers.set(names.find((name) => originals.has(name)) ?? host, server);
  }
  if (settings.isWildcard) {
    servers.set(DEFAULT_UPSTREAM, undefined);
    for (const [name, { kind }] of originals) {
      if (kind !== "directory" && kind !== "symlink") continue;
      const isShadowed = directoriesOf(name).some((other) => other !== name && originals.has(other));
      if (isRegistryDirectory(name) && !isShadowed && !servers.has(name)) servers.set(name, undefined);
    }
  }
  const generated = new Map<string, { text: string; mode: number }>();
  for (const [directory, server] of servers) {
    const path = hostsFileOf(directory);
    const existing = await readExisting(disk, certs, originals, directory, log);
    if (existing === undefined) continue;
    const previous = originals.get(path);
    const mode = modeOf(settings, previous?.kind === "file" ? previous.mode : undefined);
    generated.set(path, { text: formatHostsFile(settings, server, existing), mode });
  }
  const kept = [...originals.keys()].filter((path) => !generated.has(path) && !isKeptBeside(path));
  return { generated, kept: new Set(kept) };
}

/** Everything that was there, and nothing of ours. */
export async function planRestoration(certs: CertsDirectory): Promise<HostsPlan> {
  return { generated: new Map(), kept: new Set((await certs.originals()).keys()) };
}

/** What containerd would read from this folder; undefined when it must stay as it is. */
async function readExisting(
  disk: Disk,
  certs: CertsDirectory,
  originals: Tree,
  directory: string,
  log: Logger,
): Promise<HostsFile | undefined> {
  const leave = (path: string, reason: string): undefined => {
    log.warn("This registry's configuration stays as it is, without the mirror.", { path, reason });
    return undefined;
  };
  const folder = originals.get(directory);
  if (folder === undefined) return EMPTY;
  if (folder.kind !== "directory") return leave(directory, `it is a ${folder.kind}`);
  const certificates = { root: certificateOptions(originals, directory), hosts: [] };
  const path = hostsFileOf(directory);
  if (!originals.has(path)) return certificates;
  const file = await followLinks(disk, certs, path);
  const entry = await disk.entry(file);
  if (entry?.kind !== "file") return leave(path, "it is no readable file");
  const text = await disk.readText(file);
  if (text === undefined) return leave(path, `it is larger than ${MAX_HOSTS_FILE_BYTES} bytes`);
  if (text === "") return certificates;
  const parsed = await parseHostsFile(text);
  if ("hosts" in parsed) return parsed;
  // containerd logs the same and goes on with the certificates of the folder, or none.
  log.warn("containerd refuses this file; it is kept in the backup and its hosts are not used.", {
    path: join(certs.root, path),
    reason: parsed.reason,
  });
  return certificates;
}

/**
 * The options that stand for Docker's layout: without a usable hosts.toml containerd takes `*.crt` as authorities and
 * `*.cert` with `*.key` as client certificates. With one it does not, so the generated file must name them.
 */
function certificateOptions(originals: Tree, directory: string): TomlTable {
  const names = [...originals]
    .filter(([path, entry]) => dirname(path) === directory && entry.kind !== "directory")
    .map(([path]) => path.slice(directory.length + 1));
  const authorities = names.filter((name) => name.endsWith(".crt"));
  const clients = names
    .filter((name) => name.endsWith(".cert"))
    .map((name) => {
      const key = name.replace(/\.cert$/, ".key");
      return names.includes(key) ? [name, key] : name;
    });
  return {
    ...(authorities.length > 0 ? { ca: authorities } : {}),
    ...(clients.length > 0 ? { client: clients } : {}),
  };
}

/** The file behind a linked hosts.toml. A relative link counts from where it was; its target may be in the backup too. */
async function followLinks(disk: Disk, certs: CertsDirectory, path: string): Promise<string> {
  let at = join(certs.root, path);
  const stored = (live: string): string =>
    live.startsWith(`${certs.root}/`) ? join(certs.backup, live.slice(certs.root.length + 1)) : live;
  for (let hops = 0; hops < 8; hops++) {
    const target = await disk.linkTarget(stored(at));
    if (target === undefined) break;
    at = resolve(dirname(at), target);
  }
  return stored(at);
}

/** A file that others could not read stays so, and one with credentials is for its owner alone. */
function modeOf(settings: MirrorSettings, previous: number | undefined): number {
  const mode = (previous ?? 0o644) & 0o777;
  return settings.authorization === undefined ? mode : mode & 0o600;
}
