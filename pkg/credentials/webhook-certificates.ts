// SPDX-License-Identifier: Apache-2.0
import { sleep } from "#async";
import type { ServerCertificate } from "#http";
import { type KubeClient, type WebhookTarget, webhookServerNames } from "#kube";
import type { Logger } from "#log";
import type { GaugeInstrument, Metrics } from "#metrics";
import { isValidAt, parseCertificate, parseCertifiedKey } from "#pki";
import { type CredentialsDeps, ensureCredentials, pruneCredentials } from "./credentials.ts";
import { createKubeSecretStore } from "./kube-secret-store.ts";
import { type CredentialsConfig, LABEL, LEAF_KEYS, type Rotation, type StoredSecret } from "./model.ts";

export interface WebhookCertificatesOptions {
  /** Of the secrets. */
  readonly namespace: string;
  /** Of the program, e.g. `gardener-extension-registry-spegel`; its secrets are told by `<component>-webhook`. */
  readonly component: string;
  /** Stem of the secrets' names: `ca-<name>-webhook` and `<name>-webhook-server`. */
  readonly name: string;
  readonly target: WebhookTarget;
}

const DAY_MS = 24 * 3_600_000;
const VALIDITY_MS = 30 * DAY_MS;
const ROTATION: Rotation = { kind: "automatic", ignoreOldAfterMs: DAY_MS };
/**
 * A new certificate is served only after this time: the API server must have the new bundle first. Without any other
 * it is served at once.
 */
const SETTLE_MS = 60_000;
/** A registration that failed is tried again after this time, or sooner. */
const RETRY_MS = 5000;

/** The certificates of a webhook server, shared by all replicas as secrets (extensions/pkg/webhook/certificates). */
export interface WebhookCertificates {
  /** What to serve now; makes certificates when there are none at all. */
  load(options: { readonly signal: AbortSignal }): Promise<ServerCertificate>;
  /** Renews what is due, has the bundle registered, deletes what is no longer used. For the leader alone. */
  maintain(
    register: (bundlePem: string) => Promise<void>,
    options: { readonly signal: AbortSignal },
  ): Promise<void>;
}

/** Shows in the metrics when the certificate ends that was last loaded, and when the webhook was last registered. */
export function createWebhookCertificates(
  deps: Omit<CredentialsDeps, "store"> & { readonly client: KubeClient; readonly metrics: Metrics },
  options: WebhookCertificatesOptions,
): WebhookCertificates {
  const { expiration, registration } = createWebhookMetrics(deps.metrics);
  const config = configOf(options);
  const { identity } = config;
  const serverName = serverNameOf(options);
  const store = createKubeSecretStore(deps.client, { namespace: options.namespace, identity });
  const parts = { ...deps, store };
  return {
    async load(cancel) {
      const present = chooseServer(await store.list(cancel), serverName, deps.now());
      const server = present ?? (await makeServer(cancel));
      expiration.set(parseCertificate(server.certificatePem).validToDate.getTime() / 1000);
      return server;
    },
    async maintain(register, cancel) {
      const credentials = await ensureCredentials(parts, config, ROTATION, cancel);
      await register(credentials.bundle.pem);
      registration.set(deps.now() / 1000);
      await pruneCredentials(parts, credentials, cancel);
    },
  };

  async function makeServer(cancel: { readonly signal: AbortSignal }): Promise<ServerCertificate> {
    const leaf = (await ensureCredentials(parts, config, ROTATION, cancel)).leaves[serverName];
    return { certificatePem: leaf?.certificatePem as string, keyPem: leaf?.privateKeyPem as string };
  }
}

function createWebhookMetrics(metrics: Metrics): Record<"expiration" | "registration", GaugeInstrument> {
  return {
    expiration: metrics.gauge({
      name: "registry_spegel_webhook_certificate_expiration_timestamp_seconds",
      help: "Unix time at which the certificate ends with which this replica serves the webhook.",
    }),
    registration: metrics.gauge({
      name: "registry_spegel_webhook_registration_timestamp_seconds",
      help: "Unix time at which this replica, while it led, last registered the webhook; 0 is never.",
    }),
  };
}

/** Keeps the certificates fresh and the webhook registered until the signal aborts. For the leader alone. */
export async function keepWebhookRegistered(
  deps: {
    readonly certificates: WebhookCertificates;
    readonly register: (bundlePem: string) => Promise<void>;
    readonly logger: Logger;
  },
  options: { readonly intervalMs: number; readonly signal: AbortSignal },
): Promise<void> {
  const { signal } = options;
  while (!signal.aborted) {
    let waitMs = options.intervalMs;
    try {
      await deps.certificates.maintain(deps.register, { signal });
    } catch (error) {
      signal.throwIfAborted();
      deps.logger.error("webhook could not be registered, will try again", { err: error });
      waitMs = Math.min(waitMs, RETRY_MS);
    }
    await sleep(waitMs, { signal });
  }
}

/** The newest usable server certificate that has settled, else the oldest usable one. */
function chooseServer(
  secrets: readonly StoredSecret[],
  serverName: string,
  nowMs: number,
): ServerCertificate | undefined {
  const usable = secrets
    .filter((secret) => secret.labels[LABEL.name] === serverName && isUsable(secret, nowMs))
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

function serverNameOf({ name }: WebhookCertificatesOptions): string {
  return `${name}-webhook-server`;
}

function configOf(options: WebhookCertificatesOptions): CredentialsConfig {
  return {
    identity: `${options.component}-webhook`,
    authority: { name: `ca-${options.name}-webhook`, validityMs: VALIDITY_MS, persist: false },
    leaves: [
      {
        name: serverNameOf(options),
        usage: "server",
        commonName: options.component,
        ...webhookServerNames(options.target),
        validityMs: VALIDITY_MS,
        signedBy: "current",
      },
    ],
  };
}
