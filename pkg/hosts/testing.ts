// SPDX-License-Identifier: Apache-2.0
/** A certs.d in a temporary folder, and containerd's view of it; for the tests of this package. */
import assert from "node:assert/strict";
import syncFS from "node:fs";
import nodeFS, { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type Logger, silentLogger } from "#log";
import type { FileSystem } from "./disk.ts";
import type { HostsFile } from "./hosts-file.ts";
import { parseHostsFile } from "./hosts-file.ts";
import { directoriesOf } from "./mirror-url.ts";
import { RECORD_NAME } from "./record.ts";
import { restoreConfiguration } from "./restore-configuration.ts";
import { type MirrorConfiguration, writeMirrorConfiguration } from "./write-mirror-configuration.ts";

/** Files by path: a text, `{ link }`, or `{ text, mode }`; a path that ends with `/` is an empty folder. */
export type Files = Readonly<
  Record<string, string | { readonly link: string } | { readonly text: string; readonly mode: number }>
>;

export interface TestFolder extends AsyncDisposable {
  readonly root: string;
  put(files: Files): void;
  /** All entries as {@link Files}; folders only when empty; the record is left out, the backup on demand. */
  list(options?: { readonly withBackup?: boolean }): Files;
}

// In memory where the machine has such a folder: a killed run is tried at each of its hundred changes.
const PLACE = syncFS.existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

export async function openTestFolder(files: Files = {}): Promise<TestFolder> {
  const parent = await mkdtemp(join(PLACE, "hosts-"));
  const root = join(parent, "certs.d");
  const put = (more: Files): void => {
    for (const [path, value] of Object.entries(more)) {
      const at = join(root, path);
      syncFS.mkdirSync(path.endsWith("/") ? at : dirname(at), { recursive: true });
      if (path.endsWith("/")) continue;
      if (typeof value === "string") syncFS.writeFileSync(at, value);
      else if ("link" in value) syncFS.symlinkSync(value.link, at);
      else {
        syncFS.writeFileSync(at, value.text);
        syncFS.chmodSync(at, value.mode);
      }
    }
  };
  put(files);
  return {
    root,
    put,
    list: (options = {}) => {
      const found: Record<string, Files[string]> = {};
      const visit = (below: string): void => {
        const names = syncFS.existsSync(join(root, below))
          ? syncFS.readdirSync(join(root, below)).toSorted(compare)
          : [];
        if (names.length === 0 && below !== "") found[`${below}/`] = "";
        for (const name of names) {
          const path = below === "" ? name : `${below}/${name}`;
          if (path === RECORD_NAME || (path === "_backup" && options.withBackup !== true)) continue;
          const stat = syncFS.lstatSync(join(root, path));
          if (stat.isDirectory()) visit(path);
          else if (stat.isSymbolicLink()) found[path] = { link: syncFS.readlinkSync(join(root, path)) };
          else {
            const text = syncFS.readFileSync(join(root, path), "utf8");
            found[path] = (stat.mode & 0o777) === 0o644 ? text : { text, mode: stat.mode & 0o777 };
          }
        }
      };
      visit("");
      return found;
    },
    [Symbol.asyncDispose]: () => rm(parent, { recursive: true, force: true }),
  };
}

export const TARGET = "http://10.0.0.7:30020";

type Settings = Partial<Omit<MirrorConfiguration, "directory">>;

/** Synchronous calls behind the same interface, and no waiting for the disk: hundreds of runs in a second. */
const QUICK = new Proxy(nodeFS, {
  get: (_, name: keyof FileSystem) => {
    const call = syncFS[`${name}Sync`] as (...args: unknown[]) => unknown;
    // oxlint-disable-next-line typescript/require-await -- a failure must be a rejection
    return async (...args: unknown[]) =>
      name === "writeFile" ? call(args[0], args[1], { flag: "wx", mode: 0o600 }) : call(...args);
  },
}) as FileSystem;

/** Runs `writeMirrorConfiguration` with a wildcard, one target, tags on and nothing kept, unless told otherwise. */
export function configure(
  folder: TestFolder,
  settings: Settings = {},
  fs: FileSystem = QUICK,
  log: Logger = silentLogger,
): Promise<readonly string[]> {
  const defaults = {
    mirroredRegistries: [],
    mirrorTargets: [TARGET],
    resolveTags: true,
    prependExisting: false,
  };
  return writeMirrorConfiguration(
    { fs, log },
    { directory: folder.root, ...defaults, ...settings },
    { signal: new AbortController().signal },
  );
}

export function restore(folder: TestFolder, fs: FileSystem = QUICK): Promise<void> {
  return restoreConfiguration({ fs, log: silentLogger }, folder.root, {
    signal: new AbortController().signal,
  });
}

/** Thrown in place of a step: the process was killed there. */
export class Killed extends Error {}

const READS: readonly string[] = ["lstat", "readdir", "readFile", "readlink"];

/**
 * A file system that is killed at its `steps`-th change, before it happens; a write is cut in half.
 * `steps()` of the result counts changes.
 */
export function killedAfter(steps: number): { readonly fs: FileSystem; readonly count: () => number } {
  let done = 0;
  const fs = new Proxy(QUICK, {
    get(target, name: keyof FileSystem) {
      const call = target[name] as (...args: unknown[]) => Promise<unknown>;
      if (READS.includes(name)) return call;
      return async (...args: unknown[]) => {
        if (done++ < steps) return await call.apply(target, args);
        if (done === steps + 1 && name === "writeFile") {
          const [path, text] = args as [string, string];
          await nodeFS.writeFile(path, text.slice(0, text.length / 2));
        }
        throw new Killed();
      };
    },
  });
  return { fs, count: () => done };
}

const compare = (a: string, b: string): number => (a < b ? -1 : 1);

/** What containerd 2 asks for an image of `host`: its hosts in order, then the server with its options. */
export async function containerdView(root: string, host: string): Promise<string> {
  for (const name of [...directoriesOf(host), "_default"]) {
    const folder = join(root, name);
    const names = await nodeFS.readdir(folder).catch(() => undefined);
    if (names === undefined) continue;
    const text = names.includes("hosts.toml")
      ? await nodeFS.readFile(join(folder, "hosts.toml"), "utf8")
      : "";
    const file = text === "" ? undefined : await parseHostsFile(text);
    if (file !== undefined && "hosts" in file) return describe(file);
    const certificates = names.filter((each) => /\.(crt|cert|key)$/.test(each));
    return `certificates ${JSON.stringify(certificates)}`;
  }
  return "upstream";
}

function describe(file: HostsFile): string {
  assert.ok(file.hosts.length > 0 || Object.keys(file.root).length > 0);
  return JSON.stringify([file.hosts, file.root]);
}
