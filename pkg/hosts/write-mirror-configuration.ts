// SPDX-License-Identifier: Apache-2.0
import type { Logger } from "#log";
import { applyPlan } from "./apply-plan.ts";
import {
  adoptForeign,
  collidesWith,
  ensureBackup,
  HOSTS_FILE_NAME,
  openCertsDirectory,
} from "./certs-directory.ts";
import { createDisk, type FileSystem } from "./disk.ts";
import { HostsError } from "./errors.ts";
import { directoriesOf, isWildcard, parseMirroredRegistry, parseMirrorTarget } from "./mirror-url.ts";
import { type HostsPlan, type MirrorSettings, planPrepend, planReplacement, replacedPaths } from "./plan.ts";
import { extendRecord, type GeneratedRecord, hashText, writeRecord } from "./record.ts";

export interface HostsDeps {
  /** `node:fs/promises`. */
  readonly fs: FileSystem;
  readonly log: Logger;
}

export interface MirrorConfiguration {
  /** containerd's `config_path`, e.g. `/etc/containerd/certs.d`; made when absent. */
  readonly directory: string;
  /** URLs of registries; none, `*` or `_default` means all. */
  readonly mirroredRegistries: readonly string[];
  /** URLs of mirrors, asked in this order. */
  readonly mirrorTargets: readonly string[];
  /** Whether mirrors may answer which digest a tag has. */
  readonly resolveTags: boolean;
  /** Whether what was there stays in use, after the mirrors. */
  readonly prependExisting: boolean;
  /** `Authorization` header for the mirrors. */
  readonly authorization?: string | undefined;
}

/**
 * Makes containerd ask the mirrors first: writes `<registry>/hosts.toml` below `directory`.
 *
 * What was there is kept in `_backup` (made once) and comes back with {@link restoreConfiguration}. May be cut off
 * anywhere and repeated; with the same settings it changes nothing the second time. Files that people put there in the
 * meantime are not lost: those elsewhere stay, those in the place of ours go to the backup.
 *
 * @returns paths of the generated files, relative to `directory`
 * @throws HostsError HOSTS_SETTING_INVALID, HOSTS_TREE_UNSUPPORTED before anything is changed; HOSTS_ACCESS_FAILED
 */
export async function writeMirrorConfiguration(
  deps: HostsDeps,
  configuration: MirrorConfiguration,
  options: { readonly signal: AbortSignal },
): Promise<readonly string[]> {
  const { log } = deps;
  const settings = parseSettings(configuration);
  if (settings.targets.some((target) => target.includes("["))) {
    // The TOML reader of 1.6 and 1.7 takes no bracket in a table's name, however it is quoted.
    log.warn("containerd before 2.0 ignores a hosts.toml that names an IPv6 address.", {
      targets: settings.targets,
    });
  }
  const disk = createDisk(deps.fs, options.signal);
  await disk.makeDirectory(configuration.directory);
  const certs = await openCertsDirectory(disk, configuration.directory);
  await ensureBackup(disk, certs);

  const targets = [...settings.targets, ...(certs.record?.targets ?? [])];
  // With prepend all that is there counts as existing, also what came later.
  const isOurs = settings.prependExisting ? () => true : collidesWith(replacedPaths(settings));
  await adoptForeign(disk, certs, isOurs, targets, log);

  const plan = settings.prependExisting
    ? await planPrepend(disk, certs, settings, log)
    : await planReplacement(disk, certs, settings);
  const record = recordOf(settings, plan);
  await writeRecord(disk, certs.recordPath, extendRecord(certs.record, record));
  await applyPlan(disk, certs, plan);
  await writeRecord(disk, certs.recordPath, record);

  const live = await certs.live();
  for (const { host } of settings.registries) {
    const [winner, ...others] = directoriesOf(host).filter((name) => live.has(name));
    if (winner !== undefined && others.some((name) => plan.generated.has(`${name}/${HOSTS_FILE_NAME}`))) {
      log.warn("containerd prefers a folder that was put there since; the mirror is not asked.", {
        path: winner,
      });
    }
  }
  return [...plan.generated.keys()];
}

function parseSettings(configuration: MirrorConfiguration): MirrorSettings {
  const { mirroredRegistries, mirrorTargets } = configuration;
  if (mirrorTargets.length === 0) {
    throw new HostsError({ code: "HOSTS_SETTING_INVALID", message: "no mirror target is given" });
  }
  const named = mirroredRegistries.filter((each) => !isWildcard(each));
  return {
    registries: named.map((each) => parseMirroredRegistry(each)),
    isWildcard: named.length < mirroredRegistries.length || named.length === 0,
    targets: [...new Set(mirrorTargets.map((each) => parseMirrorTarget(each)))],
    resolveTags: configuration.resolveTags,
    prependExisting: configuration.prependExisting,
    authorization: configuration.authorization,
  };
}

function recordOf(settings: MirrorSettings, plan: HostsPlan): GeneratedRecord {
  const files = [...plan.generated].map(([path, { text }]) => [path, [hashText(text)]] as const);
  return { version: 1, targets: settings.targets, files: Object.fromEntries(files) };
}
