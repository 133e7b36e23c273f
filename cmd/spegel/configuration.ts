// SPDX-License-Identifier: Apache-2.0
import fs from "node:fs/promises";
import type { ConfigurationSettings } from "#api/config";
import { writeMirrorConfiguration } from "#hosts";
import type { Logger } from "#log";
import { readBasicAuth } from "#mirror";
import { BASIC_AUTH_DIRECTORY } from "./basic-auth-directory.ts";

/**
 * `spegel configuration`: makes containerd ask the mirrors first, and ends.
 *
 * @throws HostsError
 */
export async function runConfiguration(
  settings: ConfigurationSettings,
  context: { readonly log: Logger; readonly signal: AbortSignal; readonly basicAuthDirectory?: string },
): Promise<void> {
  const { log, signal } = context;
  const auth = await readBasicAuth(context.basicAuthDirectory ?? BASIC_AUTH_DIRECTORY);
  const files = await writeMirrorConfiguration(
    { fs, log },
    {
      directory: settings.containerdRegistryConfigPath,
      mirroredRegistries: settings.mirroredRegistries,
      mirrorTargets: settings.mirrorTargets,
      resolveTags: settings.resolveTags,
      prependExisting: settings.prependExisting,
      authorization: auth?.header,
    },
    { signal },
  );
  log.info("containerd asks the mirrors first.", { directory: settings.containerdRegistryConfigPath, files });
}
