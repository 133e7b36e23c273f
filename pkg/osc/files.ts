// SPDX-License-Identifier: Apache-2.0
import type { File, FileContent, OperatingSystemConfig } from "#api/gardener";
import {
  CA_CERTIFICATE_FILE,
  CERTIFICATE_DIRECTORY,
  CLIENT_CERTIFICATE_FILE,
  CLIENT_KEY_FILE,
  CONFIGURATION_FILE,
  SPEGEL_BINARY_PATH,
  SPEGEL_BINARY_PATH_IN_IMAGE,
  SPEGEL_LIBRARIES,
} from "#nodelayout";
import type { NodeSettings } from "./context.ts";
import { removeFile, upsertFile } from "./draft.ts";
import { oncePerNode } from "./once-per-node.ts";

const MODE_EXECUTABLE = 0o755;
const MODE_PUBLIC = 0o644;
const MODE_SECRET = 0o600;

export const CERTIFICATE_PATHS = [CA_CERTIFICATE_FILE, CLIENT_CERTIFICATE_FILE, CLIENT_KEY_FILE].map(
  (name) => `${CERTIFICATE_DIRECTORY}/${name}`,
);

/** The daemon and its libraries, taken out of their image by the node agent. */
export function addExecutable(osc: OperatingSystemConfig, node: NodeSettings): OperatingSystemConfig {
  return executableFiles(node).reduce(upsertFile, osc);
}

const executableFiles = oncePerNode(({ image }): readonly File[] =>
  [
    { path: SPEGEL_BINARY_PATH, pathInImage: SPEGEL_BINARY_PATH_IN_IMAGE, permissions: MODE_EXECUTABLE },
    ...SPEGEL_LIBRARIES.map((library) => ({ ...library, permissions: MODE_PUBLIC })),
  ].map(({ path, pathInImage, permissions }) => ({
    path,
    permissions,
    content: { imageRef: { image, filePathInImage: pathInImage } },
  })),
);

/** The client certificate for the bootstrapper, by reference: no key ever stands in the object itself. */
export function addCertificates(osc: OperatingSystemConfig, node: NodeSettings): OperatingSystemConfig {
  return certificateFiles(node).reduce(upsertFile, osc);
}

const certificateFiles = oncePerNode((node): readonly File[] =>
  [
    { name: node.caBundleSecretName, dataKey: "bundle.crt", permissions: MODE_PUBLIC },
    { name: node.clientSecretName, dataKey: "tls.crt", permissions: MODE_PUBLIC },
    { name: node.clientSecretName, dataKey: "tls.key", permissions: MODE_SECRET },
  ].map(({ name, dataKey, permissions }, index) => ({
    path: CERTIFICATE_PATHS[index] as string,
    permissions,
    content: { secretRef: { name, dataKey } },
  })),
);

/** A script that is small enough to stand in the object. */
export function scriptFile(path: string, text: string): File {
  return { path, permissions: MODE_EXECUTABLE, content: inline(text) };
}

/** True when the daemon has settings that a unit cannot take: systemd would read signs of its own into expressions. */
export function hasConfiguration(node: NodeSettings): boolean {
  return (node.registryFilters ?? []).length > 0;
}

/** The daemon's file of settings, or no file. */
export function addConfiguration(osc: OperatingSystemConfig, node: NodeSettings): OperatingSystemConfig {
  if (!hasConfiguration(node)) return removeFile(osc, CONFIGURATION_FILE);
  return upsertFile(osc, {
    path: CONFIGURATION_FILE,
    permissions: MODE_PUBLIC,
    content: inline(`${JSON.stringify({ registryFilters: node.registryFilters })}\n`),
  });
}

function inline(text: string): FileContent {
  return { inline: { encoding: "b64", data: Buffer.from(text).toString("base64") } };
}
