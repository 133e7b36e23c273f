// SPDX-License-Identifier: Apache-2.0
import { applyPlan } from "./apply-plan.ts";
import { adoptForeign, collidesWith, dropBackup, hasBackup, openCertsDirectory } from "./certs-directory.ts";
import { createDisk } from "./disk.ts";
import { planRestoration } from "./plan.ts";
import type { HostsDeps } from "./write-mirror-configuration.ts";

/**
 * Puts the folder back as it was before {@link writeMirrorConfiguration}, with files that people added since.
 *
 * The very same files come back, with owner, mode and time. May be cut off anywhere and repeated. Without a backup
 * there is nothing to put back: only files that are known to be ours go. Works on what Spegel left as well.
 *
 * @throws HostsError HOSTS_TREE_UNSUPPORTED, HOSTS_ACCESS_FAILED
 */
export async function restoreConfiguration(
  deps: HostsDeps,
  directory: string,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const disk = createDisk(deps.fs, options.signal);
  if ((await disk.entry(directory)) === undefined) {
    deps.log.info("There is no mirror configuration to clean up.", { directory });
    return;
  }
  const certs = await openCertsDirectory(disk, directory);
  if (!(await hasBackup(disk, certs))) {
    deps.log.info("There is no backup to restore.", { directory });
    if (certs.record !== undefined) {
      await applyPlan(disk, certs, { generated: new Map(), kept: new Set() });
      await disk.remove(certs.recordPath);
    }
    return;
  }
  const originals = await certs.originals();
  const folders = [...originals.keys()].filter((path) => originals.get(path)?.kind === "directory");
  const files = [...originals.keys()].filter((path) => originals.get(path)?.kind !== "directory");
  const isOurs = collidesWith([...files, ...Object.keys(certs.record?.files ?? {})], folders);
  await adoptForeign(disk, certs, isOurs, certs.record?.targets ?? [], deps.log);
  await applyPlan(disk, certs, await planRestoration(certs));
  await dropBackup(disk, certs);
  deps.log.info("The configuration is as it was before.", { directory, entries: originals.size });
}
