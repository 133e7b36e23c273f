// SPDX-License-Identifier: Apache-2.0
import type { OperatingSystemConfig } from "#api/gardener";
import {
  CA_CERTIFICATE_FILE,
  CERTIFICATE_DIRECTORY,
  CLIENT_CERTIFICATE_FILE,
  CLIENT_KEY_FILE,
  SPEGEL_BINARY_PATH,
  SPEGEL_BINARY_PATH_IN_IMAGE,
} from "#nodelayout";
import type { NodeSettings } from "./context.ts";
import { upsertFile } from "./draft.ts";

const MODE_EXECUTABLE = 0o755;
const MODE_PUBLIC = 0o644;
const MODE_SECRET = 0o600;

export const CERTIFICATE_PATHS = [CA_CERTIFICATE_FILE, CLIENT_CERTIFICATE_FILE, CLIENT_KEY_FILE].map(
  (name) => `${CERTIFICATE_DIRECTORY}/${name}`,
);

/** The daemon, taken out of its image by the node agent. */
export function addExecutable(osc: OperatingSystemConfig, node: NodeSettings): OperatingSystemConfig {
  return upsertFile(osc, {
    path: SPEGEL_BINARY_PATH,
    permissions: MODE_EXECUTABLE,
    content: { imageRef: { image: node.image, filePathInImage: SPEGEL_BINARY_PATH_IN_IMAGE } },
  });
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

/** A script or text that is small enough to stand in the object. */
export function addInlineFile(
  osc: OperatingSystemConfig,
  file: { readonly path: string; readonly text: string },
): OperatingSystemConfig {
  const data = Buffer.from(file.text).toString("base64");
  return upsertFile(osc, {
    path: file.path,
    permissions: MODE_EXECUTABLE,
    content: { inline: { encoding: "b64", data } },
  });
}
