// SPDX-License-Identifier: Apache-2.0
import { isIP } from "node:net";
import {
  type CredentialsConfig,
  type CredentialsDeps,
  createKubeSecretStore,
  ensureCredentials,
  LABEL,
  LEAF_KEYS,
  pruneCredentials,
  type Rotation,
  type StoredSecret,
} from "#credentials";
import { EXTENSION_NAME } from "#extension";
import type { ServerCertificate } from "#http";
import type { KubeClient } from "#kube";
import { isValidAt, parseCertifiedKey } from "#pki";
import type { WebhookTarget } from "./webhook-registration.ts";

const IDENTITY = `${EXTENSION_NAME}-webhook`;
const SERVER_NAME = "registry-spegel-webhook-server";
const DAY_MS = 24 * 3_600_000;
const ROTATION: Rotation = { kind: "automatic", ignoreOldAfterMs: DAY_MS };
/**
 * A new certificate is served only after this time: the API server must have the new bundle first. Without any other
 * it is served at once.
 */
const SETTLE_MS = 60_000;

/** The certificates of the webhook server, shared by all replicas as secrets in the extension's namespace. */
export interface WebhookCertificates {
  /** What to serve now; makes certificates when there are none at all. */
  load(options: { readonly signal: AbortSignal }): Promise<ServerCertificate>;
  /** Renews what is due, has the bundle registered, deletes what is no longer used. For the leader alone. */
  maintain(
    register: (bundlePem: string) => Promise<void>,
    options: { readonly signal: AbortSignal },
  ): Promise<{ readonly notAfterMs: number }>;
}

export function createWebhookCertificates(
  deps: Omit<CredentialsDeps, "store"> & { readonly client: KubeClient },
  options: { readonly namespace: string; readonly target: WebhookTarget },
): WebhookCertificates {
  const store = createKubeSecretStore(deps.client, { namespace: options.namespace, identity: IDENTITY });
  const parts = { ...deps, store };
  const config = configOf(options.target);
  return {
    async load(cancel) {
      const present = chooseServer(await store.list(cancel), deps.now());
      if (present !== undefined) return present;
      const leaf = (await ensureCredentials(parts, config, ROTATION, cancel)).leaves[SERVER_NAME];
      return { certificatePem: leaf?.certificatePem as string, keyPem: leaf?.privateKeyPem as string };
    },
    async maintain(register, cancel) {
      const credentials = await ensureCredentials(parts, config, ROTATION, cancel);
      await register(credentials.bundle.pem);
      await pruneCredentials(parts, credentials, cancel);
      return { notAfterMs: credentials.leaves[SERVER_NAME]?.notAfterMs as number };
    },
  };
}

/** The newest usable server certificate that has settled, else the oldest usable one. */
function chooseServer(secrets: readonly StoredSecret[], nowMs: number): ServerCertificate | undefined {
  const usable = secrets
    .filter((secret) => secret.labels[LABEL.name] === SERVER_NAME && isUsable(secret, nowMs))
    .sort((a, b) => b.createdMs - a.createdMs || (a.name < b.name ? -1 : 1));
  const chosen = usable.find((secret) => nowMs - secret.createdMs >= SETTLE_MS) ?? usable.at(-1);
  return chosen && serverCertificate(chosen);
}

function isUsable(secret: StoredSecret, nowMs: number): boolean {
  try {
    const { certificatePem, keyPem: privateKeyPem } = serverCertificate(secret);
    return isValidAt(parseCertifiedKey({ certificatePem, privateKeyPem }), nowMs);
  } catch {
    return false;
  }
}

function serverCertificate(secret: StoredSecret): ServerCertificate {
  return {
    certificatePem: secret.data[LEAF_KEYS.certificate] ?? "",
    keyPem: secret.data[LEAF_KEYS.key] ?? "",
  };
}

function configOf(target: WebhookTarget): CredentialsConfig {
  return {
    identity: IDENTITY,
    authority: { name: "ca-registry-spegel-webhook", validityMs: 30 * DAY_MS, persist: false },
    leaves: [
      {
        name: SERVER_NAME,
        usage: "server",
        commonName: EXTENSION_NAME,
        ...namesOf(target),
        validityMs: 30 * DAY_MS,
        signedBy: "current",
      },
    ],
  };
}

/** Names under which the API server calls. */
function namesOf(target: WebhookTarget): { dnsNames?: string[]; ipAddresses?: string[] } {
  if (target.mode === "service") {
    const name = `${EXTENSION_NAME}.${target.namespace}`;
    return { dnsNames: [EXTENSION_NAME, name, `${name}.svc`] };
  }
  const host = new URL(`https://${target.url}`).hostname.replace(/^\[|\]$/g, "");
  return isIP(host) === 0 ? { dnsNames: [host] } : { ipAddresses: [host] };
}
