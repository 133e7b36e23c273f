// SPDX-License-Identifier: Apache-2.0
import {
  type CredentialsConfig,
  type CredentialsDeps,
  createKubeSecretStore,
  ensureCredentials,
  pruneCredentials,
  removeCredentials,
  type SecretStore,
} from "#credentials";
import {
  AUTHORITY_NAME,
  BOOTSTRAPPER_NAME,
  type Certificates,
  CLIENT_CERTIFICATE_NAME,
  CLIENT_COMMON_NAME,
  CREDENTIALS_IDENTITY,
  SERVER_CERTIFICATE_NAME,
} from "#extension";
import type { KubeClient } from "#kube";

const DAY_MS = 24 * 3_600_000;

/** The certificates of a Shoot, kept as secrets in its namespace. */
export function createShootCertificates(
  deps: Omit<CredentialsDeps, "store"> & { readonly client: KubeClient },
): Certificates {
  const { client, ...rest } = deps;
  const storeOf = (namespace: string): SecretStore =>
    createKubeSecretStore(client, { namespace, identity: CREDENTIALS_IDENTITY });
  return {
    async ensure({ namespace, serverNames, rotation }, cancel) {
      const parts = { ...rest, store: storeOf(namespace) };
      const credentials = await ensureCredentials(
        parts,
        configOf(serverNames),
        { kind: "shoot", ...rotation },
        cancel,
      );
      const secretName = (leaf: string): string => credentials.leaves[leaf]?.secretName as string;
      return {
        bundleSecretName: credentials.bundle.secretName,
        serverSecretName: secretName(SERVER_CERTIFICATE_NAME),
        clientSecretName: secretName(CLIENT_CERTIFICATE_NAME),
        prune: (pruneCancel) => pruneCredentials(parts, credentials, pruneCancel),
      };
    },
    remove: (namespace, cancel) => removeCredentials(storeOf(namespace), cancel),
  };
}

function configOf(serverNames: readonly string[]): CredentialsConfig {
  return {
    identity: CREDENTIALS_IDENTITY,
    authority: { name: AUTHORITY_NAME, validityMs: 3650 * DAY_MS, persist: true },
    leaves: [
      {
        name: SERVER_CERTIFICATE_NAME,
        usage: "server",
        commonName: BOOTSTRAPPER_NAME,
        dnsNames: serverNames,
        validityMs: 90 * DAY_MS,
      },
      {
        name: CLIENT_CERTIFICATE_NAME,
        usage: "client",
        commonName: CLIENT_COMMON_NAME,
        validityMs: 365 * DAY_MS,
      },
    ],
  };
}
