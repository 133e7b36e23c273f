// SPDX-License-Identifier: Apache-2.0
import type { X509Certificate } from "node:crypto";

export interface RenewalPolicy {
  /** Renew after this part of the validity, in percent (0-100). */
  readonly afterPercent: number;
  /** Renew at the latest this long before the end. */
  readonly beforeEndMs: number;
}

/** Gardener's secrets manager: at 80 % of the validity, at the latest ten days before the end. */
export const DEFAULT_RENEWAL: RenewalPolicy = { afterPercent: 80, beforeEndMs: 10 * 24 * 3_600_000 };

/** Validity in milliseconds since 1970. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export function validityOf(certificate: X509Certificate): Validity {
  return { notBeforeMs: certificate.validFromDate.getTime(), notAfterMs: certificate.validToDate.getTime() };
}

/** The moment from which a certificate should be replaced; never before its notBefore. */
export function renewalTimeMs(validity: Validity, policy: RenewalPolicy = DEFAULT_RENEWAL): number {
  const lengthMs = validity.notAfterMs - validity.notBeforeMs;
  const byShareMs = validity.notBeforeMs + (lengthMs * policy.afterPercent) / 100;
  return Math.max(validity.notBeforeMs, Math.min(byShareMs, validity.notAfterMs - policy.beforeEndMs));
}
