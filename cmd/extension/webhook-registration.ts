// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from "node:util";
import { EXTENSION_NAME, EXTENSION_TYPE } from "#extension";
import { type KubeClient, type KubeObject, NAMESPACES, type OwnerReference, type Resource } from "#kube";

export const WEBHOOK_PATH = "/webhooks/registry-spegel";

/** Where the API server finds the webhook. */
export type WebhookTarget =
  | { readonly mode: "service"; readonly namespace: string; readonly port: number }
  /** `host:port` */
  | { readonly mode: "url"; readonly url: string };

interface WebhookConfiguration extends KubeObject {
  readonly webhooks?: readonly object[];
}

const CONFIGURATIONS: Resource<WebhookConfiguration> = {
  group: "admissionregistration.k8s.io",
  version: "v1",
  plural: "mutatingwebhookconfigurations",
  kind: "MutatingWebhookConfiguration",
  namespaced: false,
};
const NAME = EXTENSION_NAME;

/** Every field that the API server would default is set, so that what it returns can be compared. */
function webhookOf(target: WebhookTarget, caBundlePem: string): object {
  const reached =
    target.mode === "url"
      ? { url: `https://${target.url}${WEBHOOK_PATH}` }
      : {
          service: {
            namespace: target.namespace,
            name: EXTENSION_NAME,
            path: WEBHOOK_PATH,
            port: target.port,
          },
        };
  return {
    name: `${EXTENSION_TYPE}.${EXTENSION_TYPE}.extensions.gardener.cloud`,
    admissionReviewVersions: ["v1", "v1beta1"],
    clientConfig: { ...reached, caBundle: Buffer.from(caBundlePem).toString("base64") },
    rules: [
      {
        operations: ["CREATE", "UPDATE"],
        apiGroups: ["extensions.gardener.cloud"],
        apiVersions: ["v1alpha1"],
        resources: ["operatingsystemconfigs"],
        scope: "*",
      },
    ],
    namespaceSelector: {
      matchExpressions: [
        { key: `extensions.gardener.cloud/${EXTENSION_TYPE}`, operator: "In", values: ["true"] },
      ],
    },
    objectSelector: {},
    failurePolicy: "Fail",
    matchPolicy: "Exact",
    // Other extensions add registries to the same object; whichever comes last, ours sees the result.
    reinvocationPolicy: "IfNeeded",
    sideEffects: "None",
    timeoutSeconds: 10,
  };
}

/**
 * Creates or updates the MutatingWebhookConfiguration; writes nothing when it is as wanted. It belongs to the
 * namespace of the extension and is garbage-collected with it.
 */
export async function registerWebhook(
  client: KubeClient,
  settings: { readonly target: WebhookTarget; readonly caBundlePem: string; readonly ownerNamespace: string },
  cancel: { readonly signal: AbortSignal },
): Promise<void> {
  const labels = { "remediation.webhook.shoot.gardener.cloud/exclude": "true" };
  const owner = await ownerReference(client, settings.ownerNamespace, cancel);
  const metadata = { name: NAME, labels, ...(owner && { ownerReferences: [owner] }) };
  const webhooks = [webhookOf(settings.target, settings.caBundlePem)];
  const present = await client.find(CONFIGURATIONS, { name: NAME }, cancel);
  if (present === undefined) {
    await client.create(CONFIGURATIONS, { metadata, webhooks }, cancel);
    return;
  }
  const isAsWanted =
    isDeepStrictEqual(present.webhooks, webhooks) &&
    Object.entries(labels).every(([key, value]) => present.metadata.labels?.[key] === value) &&
    (owner === undefined || isDeepStrictEqual(present.metadata.ownerReferences, [owner]));
  if (isAsWanted) return;
  const { resourceVersion } = present.metadata;
  await client.mergePatch(
    CONFIGURATIONS,
    { name: NAME },
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
