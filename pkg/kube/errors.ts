// SPDX-License-Identifier: Apache-2.0
import { CodedError } from "#errors";

export type KubeErrorCode =
  | "KUBE_CONFIG_INVALID"
  | "KUBE_NOT_FOUND"
  | "KUBE_ALREADY_EXISTS"
  | "KUBE_CONFLICT"
  | "KUBE_GONE"
  | "KUBE_UNAUTHORIZED"
  | "KUBE_FORBIDDEN"
  | "KUBE_INVALID"
  | "KUBE_THROTTLED"
  | "KUBE_UNAVAILABLE"
  | "KUBE_TIMEOUT"
  | "KUBE_RESPONSE_INVALID"
  | "KUBE_LEADERSHIP_LOST";

export class KubeError extends CodedError<KubeErrorCode> {
  override readonly name = "KubeError";
  /** HTTP status, when the API server answered. */
  readonly status?: number;
  /** `reason` of the server's Status, e.g. `AlreadyExists`. */
  readonly reason?: string;

  constructor(init: {
    readonly code: KubeErrorCode;
    readonly message: string;
    readonly cause?: unknown;
    readonly status?: number | undefined;
    readonly reason?: string | undefined;
  }) {
    super(init);
    if (init.status !== undefined) this.status = init.status;
    if (init.reason !== undefined) this.reason = init.reason;
  }
}

/** meta/v1 Status, as far as it is read. */
export interface StatusBody {
  readonly kind?: unknown;
  readonly message?: unknown;
  readonly reason?: unknown;
  readonly code?: unknown;
  readonly details?: unknown;
}

const MAX_MESSAGE_LENGTH = 1000;

/** The error of a failure that the server reported. `what` says what was asked: `PATCH /api/v1/...`. */
export function errorOfStatus(what: string, status: number, body: StatusBody | undefined): KubeError {
  const reason = typeof body?.reason === "string" ? body.reason : undefined;
  const told = typeof body?.message === "string" ? `: ${body.message.slice(0, MAX_MESSAGE_LENGTH)}` : "";
  const code = codeOfStatus(status, reason, body);
  const isUnserved = status === 404 && code !== "KUBE_NOT_FOUND";
  const meaning = isUnserved ? "; the API server does not serve it (yet)" : "";
  return new KubeError({
    code,
    message: `${what} was answered with ${status}${told}${meaning}`,
    status,
    reason,
  });
}

/**
 * A 404 about an object names it. One that does not, such as that of an API server that has not loaded its
 * CustomResourceDefinitions yet, or of a proxy, says nothing about whether the object exists.
 */
function namesObject(body: StatusBody | undefined): boolean {
  const name = (body?.details as { readonly name?: unknown } | null | undefined)?.name;
  return typeof name === "string" && name !== "";
}

function codeOfStatus(
  status: number,
  reason: string | undefined,
  body: StatusBody | undefined,
): KubeErrorCode {
  switch (status) {
    case 401:
      return "KUBE_UNAUTHORIZED";
    case 403:
      return "KUBE_FORBIDDEN";
    case 404:
      return namesObject(body) ? "KUBE_NOT_FOUND" : "KUBE_UNAVAILABLE";
    case 409:
      return reason === "AlreadyExists" ? "KUBE_ALREADY_EXISTS" : "KUBE_CONFLICT";
    case 410:
      return "KUBE_GONE";
    case 429:
      return "KUBE_THROTTLED";
    case 504:
      return "KUBE_TIMEOUT";
    default:
      return status >= 500 ? "KUBE_UNAVAILABLE" : "KUBE_INVALID";
  }
}
