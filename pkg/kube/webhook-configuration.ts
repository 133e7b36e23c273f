// SPDX-License-Identifier: Apache-2.0
import { isIP } from "node:net";
import { isDeepStrictEqual } from "node:util";
import type { KubeClient } from "./client.ts";
import { type KubeObject, NAMESPACES, type OwnerReference, type Resource } from "./resource.ts";

/** Where an API server finds a webhook. */
export type WebhookTarget =
  | {
      readonly mode: "service";
      readonly namespace: string;
      /** Of the Service. */
      readonly name: string;
      readonly port: number;
    }
  /** `host:port` */
  | { readonly mode: "url"; readonly url: string };

/** A WebhookConfiguration (admissionregistration.k8s.io/v1) as it shall be. */
export interface WebhookRegistration {
  readonly kind: "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration";
  readonly name: string;
  /** With every field that the API server would default, so that what it returns can be compared. */
  readonly webhooks: readonly object[];
  /** The configuration is garbage-collected with this namespace. */
  readonly ownerNamespace: string;
}

interface WebhookConfiguration extends KubeObject {
  readonly webhooks?: readonly object[];
}

/** Gardener leaves configurations with this label alone when it repairs those that hurt a Shoot. */
const LABELS: Readonly<Record<string, string>> = {
  "remediation.webhook.shoot.gardener.cloud/exclude": "true",
};

/** `clientConfig` of a webhook at `path`. */
export function webhookClientConfig(target: WebhookTarget, path: string, caBundlePem: string): object {
  const caBundle = Buffer.from(caBundlePem).toString("base64");
  if (target.mode === "url") return { url: `https://${target.url}${path}`, caBundle };
  const { namespace, name, port } = target;
  return { service: { namespace, name, path, port }, caBundle };
}

/** Names under which the API server calls, as a server certificate needs them. */
export function webhookServerNames(target: WebhookTarget): {
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
} {
  if (target.mode === "service") {
    const name = `${target.name}.${target.namespace}`;
    return { dnsNames: [target.name, name, `${name}.svc`] };
  }
  const host = new URL(`https://${target.url}`).hostname.replace(/^\[|\]$/g, "");
  return isIP(host) === 0 ? { dnsNames: [host] } : { ipAddresses: [host] };
}

/**
 * Creates or updates a webhook configuration; writes nothing when it is as wanted.
 * @throws KubeError
 */
export async function registerWebhook(
  client: KubeClient,
  wanted: WebhookRegistration,
  cancel: { readonly signal: AbortSignal },
): Promise<void> {
  const { name, webhooks } = wanted;
  const resource: Resource<WebhookConfiguration> = {
    group: "admissionregistration.k8s.io",
    version: "v1",
    plural: `${wanted.kind.toLowerCase()}s`,
    kind: wanted.kind,
    namespaced: false,
  };
  const owner = await ownerReference(client, wanted.ownerNamespace, cancel);
  const metadata = { name, labels: LABELS, ...(owner && { ownerReferences: [owner] }) };
  const present = await client.find(resource, { name }, cancel);
  if (present === undefined) {
    await client.create(resource, { metadata, webhooks }, cancel);
    return;
  }
  const isAsWanted =
    isDeepStrictEqual(present.webhooks, webhooks) &&
    Object.entries(LABELS).every(([key, value]) => present.metadata.labels?.[key] === value) &&
    (owner === undefined || isDeepStrictEqual(present.metadata.ownerReferences, [owner]));
  if (isAsWanted) return;
  const { resourceVersion } = present.metadata;
  await client.mergePatch(
    resource,
    { name },
    { metadata: { ...metadata, resourceVersion }, webhooks },
    cancel,
  );
}

async function ownerReference(
  client: KubeClient,
  name: string,
  cancel: { readonly signal: AbortSignal },
): Promise<OwnerReference | undefined> {
  const namespace = await client.find(NAMESPACES, { name }, cancel);
  const uid = namespace?.metadata.uid;
  if (uid === undefined) return undefined;
  return { apiVersion: "v1", kind: "Namespace", name, uid, controller: true, blockOwnerDeletion: false };
}
