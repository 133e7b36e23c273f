// SPDX-License-Identifier: Apache-2.0
import { EXTENSION_NAME, EXTENSION_TYPE } from "#extension";
import { type WebhookRegistration, type WebhookTarget, webhookClientConfig } from "#kube";
import type { Metrics } from "#metrics";
import type { OSCWebhook } from "#osc";

export const WEBHOOK_PATH = "/webhooks/registry-spegel";

/** The registration of the webhook for OperatingSystemConfigs, as Gardener's extension library makes it. */
export function oscWebhook(settings: {
  readonly target: WebhookTarget;
  readonly caBundlePem: string;
  readonly ownerNamespace: string;
}): WebhookRegistration {
  const webhook = {
    name: `${EXTENSION_TYPE}.${EXTENSION_TYPE}.extensions.gardener.cloud`,
    admissionReviewVersions: ["v1", "v1beta1"],
    clientConfig: webhookClientConfig(settings.target, WEBHOOK_PATH, settings.caBundlePem),
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
  return {
    kind: "MutatingWebhookConfiguration",
    name: EXTENSION_NAME,
    webhooks: [webhook],
    ownerNamespace: settings.ownerNamespace,
  };
}

/** Counts what it answers: `denied` are Shoots whose Extension has not reported yet, `failed` is trouble. */
export function countReviews(webhook: OSCWebhook, metrics: Metrics): OSCWebhook {
  const reviews = metrics.counter({
    name: "registry_spegel_osc_reviews_total",
    help: "Total number of reviews of OperatingSystemConfigs by result.",
    labels: ["result"],
  });
  return {
    async review(body, options) {
      const review = await webhook.review(body, options);
      const { allowed, status } = review.response;
      reviews.add({ result: allowed ? "allowed" : status?.code === 403 ? "denied" : "failed" });
      return review;
    },
  };
}
