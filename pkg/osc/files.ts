// SPDX-License-Identifier: Apache-2.0
import type { FileContent, OperatingSystemConfig } from "#api/gardener";
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

const MODE_EXECUTABLE = 0o755;
const MODE_PUBLIC = 0o644;
const MODE_SECRET = 0o600;

export const CERTIFICATE_PATHS = [CA_CERTIFICATE_FILE, CLIENT_CERTIFICATE_FILE, CLIENT_KEY_FILE].map(
  (name) => `${CERTIFICATE_DIRECTORY}/${name}`,
);

/** The daemon and its libraries, taken out of their image by the node agent. */
export function addExecutable(osc: OperatingSystemConfig, node: NodeSettings): OperatingSystemConfig {
  const files = [
    { path: SPEGEL_BINARY_PATH, pathInImage: SPEGEL_BINARY_PATH_IN_IMAGE, permissions: MODE_EXECUTABLE },
    ...SPEGEL_LIBRARIES.map((library) => ({ ...library, permissions: MODE_PUBLIC })),
  ];
  return files.reduce(
    (draft, { path, pathInImage, permissions }) =>
      upsertFile(draft, {
        path,
        permissions,
        content: { imageRef: { image: node.image, filePathInImage: pathInImage } },
      }),
    osc,
  );
}

/** The client certificate for the bootstrapper, by reference: no key ever stands in the object itself. */
export function addCertificates(osc: OperatingSystemConfig, node: NodeSettings): OperatingSystemConfig {
  const sources = [
    { name: node.caBundleSecretName, dataKey: "bundle.crt", permissions: MODE_PUBLIC },
    { name: node.clientSecretName, dataKey: "tls.crt", permissions: MODE_PUBLIC },
    { name: node.clientSecretName, dataKey: "tls.key", permissions: MODE_SECRET },
  ];
  return sources.reduce(
    (draft, { name, dataKey, permissions }, index) =>
      upsertFile(draft, {
        path: CERTIFICATE_PATHS[index] as string,
        permissions,
        content: { secretRef: { name, dataKey } },
      }),
    osc,
  );
}

/** A script that is small enough to stand in the object. */
export function addScript(
  osc: OperatingSystemConfig,
  file: { readonly path: string; readonly text: string },
): OperatingSystemConfig {
  return upsertFile(osc, {
    path: file.path,
    permissions: MODE_EXECUTABLE,
    content: inline(file.text),
  });
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
