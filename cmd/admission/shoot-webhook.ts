// SPDX-License-Identifier: Apache-2.0
import { type WebhookRegistration, type WebhookTarget, webhookClientConfig } from "#kube";

export const COMPONENT = "gardener-extension-registry-spegel-admission";
export const WEBHOOK_PATH = "/webhooks/registry-spegel";

/**
 * The registration of the webhook for Shoots. gardener-apiserver sets the label on Shoots with the extension, also
 * when it is enabled for all (plugin ExtensionLabels), and takes it away when it is disabled.
 */
export function shootWebhook(settings: {
  readonly target: WebhookTarget;
  readonly caBundlePem: string;
  readonly ownerNamespace: string;
}): WebhookRegistration {
  const webhook = {
    name: "validation.registry-spegel.extensions.gardener.cloud",
    admissionReviewVersions: ["v1", "v1beta1"],
    clientConfig: webhookClientConfig(settings.target, WEBHOOK_PATH, settings.caBundlePem),
    rules: [
      {
        operations: ["CREATE", "UPDATE"],
        apiGroups: ["core.gardener.cloud"],
        apiVersions: ["*"],
        resources: ["shoots"],
        scope: "*",
      },
    ],
    namespaceSelector: {},
    objectSelector: { matchLabels: { "extensions.extensions.gardener.cloud/registry-spegel": "true" } },
    failurePolicy: "Fail",
    matchPolicy: "Exact",
    sideEffects: "None",
    timeoutSeconds: 10,
  };
  return {
    kind: "ValidatingWebhookConfiguration",
    name: COMPONENT,
    webhooks: [webhook],
    ownerNamespace: settings.ownerNamespace,
  };
}
