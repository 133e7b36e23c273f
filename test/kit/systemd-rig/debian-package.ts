// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { access, mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { errorMessage } from "#errors";

const execute = promisify(execFile);
const APT_TIMEOUT_MS = 120_000;

/**
 * Unpacks a package of the machine's own Debian release beside the machine, nothing of it is installed, and keeps it
 * in `${XDG_CACHE_HOME:-~/.cache}/registry-spegel/packages`.
 *
 * @returns the folder that has the package's files, as if it were the root
 * @throws Error that says in one line why the package cannot be had
 */
export async function unpackDebianPackage(
  name: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<string> {
  const cache = join(
    process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"),
    "registry-spegel",
    "packages",
  );
  const folder = join(cache, `${name}-${process.arch}`);
  const isThere = await access(folder).then(
    () => true,
    () => false,
  );
  if (isThere) return folder;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, ".unpack-"));
  const apt = (...words: string[]): Promise<unknown> =>
    execute("apt-get", ["-qq", "-o", "APT::Sandbox::User=root", ...words], {
      cwd: work,
      signal,
      timeout: APT_TIMEOUT_MS,
    });
  try {
    // Lists that are old, or that there are none of yet, are the usual reason for a failure.
    await apt("download", name).catch(() => apt("update").then(() => apt("download", name)));
    const file = (await readdir(work)).find((each) => each.endsWith(".deb"));
    if (file === undefined) throw new Error("apt-get download left no package");
    await execute("dpkg-deb", ["-x", file, "root"], { cwd: work, signal });
    await rename(join(work, "root"), folder);
    return folder;
  } catch (error) {
    signal.throwIfAborted();
    throw new Error(`no Debian package ${name}: ${errorMessage(error).trim().split("\n").at(-1)}`, {
      cause: error,
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
