// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import type { AdmissionReview } from "#http";
import { createMetrics } from "#metrics";
import { countReviews } from "./osc-webhook.ts";

test("trouble of the webhook is counted apart from what it denies on purpose", async () => {
  const metrics = createMetrics();
  const answers = [
    { uid: "1", allowed: true },
    { uid: "2", allowed: false, status: { code: 403, message: "no providerStatus yet" } },
    { uid: "3", allowed: false, status: { code: 400, message: "spec is not an object" } },
    { uid: "4", allowed: false, status: { code: 500, message: "the API server is away" } },
  ].map(
    (response): AdmissionReview => ({ apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview", response }),
  );
  let next = 0;
  const webhook = countReviews({ review: async () => answers[next++] as AdmissionReview }, metrics);
  for (const answer of answers)
    assert.equal(await webhook.review("", { signal: new AbortController().signal }), answer);
  const text = await metrics.render();
  for (const [result, count] of Object.entries({ allowed: 1, denied: 1, failed: 2 }))
    assert.ok(text.includes(`registry_spegel_osc_reviews_total{result="${result}"} ${count}\n`), text);
});
