// SPDX-License-Identifier: Apache-2.0
import { type AdmissionReview, type AdmissionVerdict, answerReview } from "#http";
import type { Logger } from "#log";
import type { Metrics } from "#metrics";
import { type JudgeShootOptions, judgeShoot } from "./judge-shoot.ts";

export interface ShootWebhookDeps {
  readonly logger: Logger;
  readonly metrics: Metrics;
}

export interface ShootWebhook {
  /** Answers the body of one AdmissionReview (v1 or v1beta1). Never rejects. */
  review(body: Uint8Array | string, options: { readonly signal: AbortSignal }): Promise<AdmissionReview>;
}

/** The validating webhook for Shoots. It reads no clock and writes nothing, so a dry run needs no care. */
export function createShootWebhook(deps: ShootWebhookDeps, options: JudgeShootOptions): ShootWebhook {
  const reviews = deps.metrics.counter({
    name: "registry_spegel_admission_reviews_total",
    help: "Total number of reviews of Shoots by result: allowed, denied by the rules, or failed.",
    labels: ["result"],
  });
  return {
    async review(body, cancel) {
      const review = await answerReview(
        body,
        {
          readsOldObject: true,
          async judge(request) {
            const verdict = judgeShoot(request, options);
            log(deps.logger, request, verdict);
            return verdict;
          },
        },
        cancel,
      );
      const { allowed, status } = review.response;
      reviews.add({ result: allowed ? "allowed" : status?.code === 403 ? "denied" : "failed" });
      return review;
    },
  };
}

function log(
  logger: Logger,
  { namespace, name, operation }: { namespace?: string; name?: string; operation: string },
  verdict: AdmissionVerdict,
): void {
  if (verdict.allowed) logger.debug("Shoot allowed", { namespace, name, operation });
  else logger.info("Shoot denied", { namespace, name, operation, reason: verdict.message.slice(0, 2048) });
}
