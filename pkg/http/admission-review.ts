// SPDX-License-Identifier: Apache-2.0
import { errorMessage } from "#errors";

/** The part of `AdmissionReview.request` (admission.k8s.io v1 and v1beta1) that judges read. */
export interface AdmissionRequest {
  readonly uid: string;
  readonly operation: "CREATE" | "UPDATE" | "DELETE" | "CONNECT";
  readonly namespace?: string;
  readonly name?: string;
  /** Raw JSON; absent or null for DELETE. */
  readonly object?: unknown;
  /** Raw JSON; absent or null for CREATE; may be absent for a judge that does not read it. */
  readonly oldObject?: unknown;
}

export type AdmissionVerdict =
  | {
      readonly allowed: true;
      /** RFC 6902 operations; empty and absent both mean "as it is". */
      readonly patch?: readonly object[];
      /** Shown to the user by clients, each a short line. */
      readonly warnings?: readonly string[];
    }
  | {
      readonly allowed: false;
      /** HTTP status of the answer the user gets, e.g. 403. */
      readonly code: number;
      readonly message: string;
    };

export interface AdmissionJudge {
  /** False: requests come without `oldObject` where that spares reading it, as it is half of an update. */
  readonly readsOldObject: boolean;
  judge(request: AdmissionRequest, options: { readonly signal: AbortSignal }): Promise<AdmissionVerdict>;
}

/** `AdmissionReview` with a response, to be sent as JSON with HTTP status 200. */
export interface AdmissionReview {
  readonly apiVersion: string;
  readonly kind: "AdmissionReview";
  readonly response: {
    /** Of the request; empty when the request could not be read. */
    readonly uid: string;
    readonly allowed: boolean;
    readonly status?: { readonly code: number; readonly message: string };
    readonly patchType?: "JSONPatch";
    /** Base64 of the operations as JSON. */
    readonly patch?: string;
    readonly warnings?: readonly string[];
  };
}

export interface ReviewOptions {
  readonly signal: AbortSignal;
  /**
   * Longer bodies are refused. The default of 8 MiB holds an old and a new object of the largest size the API
   * server accepts (3 MiB each).
   */
  readonly maxBodyBytes?: number;
}

const GROUP = "admission.k8s.io";
const VERSIONS: readonly string[] = [`${GROUP}/v1`, `${GROUP}/v1beta1`];
export const MAX_REVIEW_BYTES: number = 8 * 1024 * 1024;
// Kubernetes cuts what a webhook says; a hostile object must not make logs and events grow either.
const MAX_MESSAGE_CHARS = 2048;
const MAX_WARNINGS = 16;

/**
 * Answers one AdmissionReview. It never rejects: what cannot be read is denied with code 400, a body that is
 * too large with 413, and a judge that throws denies with 500, as Gardener's webhook library does.
 *
 * @param body the request body as it came over the wire
 */
export async function answerReview(
  body: Uint8Array | string,
  judge: AdmissionJudge,
  options: ReviewOptions,
): Promise<AdmissionReview> {
  const maxBytes = options.maxBodyBytes ?? MAX_REVIEW_BYTES;
  const bytes = bytesOf(body);
  if (bytes.length > maxBytes) {
    return answer(VERSIONS[0] as string, "", deny(413, `the body is larger than ${maxBytes} bytes`));
  }
  const review = (judge.readsOldObject ? undefined : readHead(bytes)) ?? readReview(bytes.toString());
  if (typeof review === "string") return answer(VERSIONS[0] as string, "", deny(400, review));
  const { apiVersion, request } = review;
  try {
    return answer(apiVersion, request.uid, await judge.judge(request, options));
  } catch (error) {
    return answer(apiVersion, request.uid, deny(500, errorMessage(error)));
  }
}

interface ReadReview {
  readonly apiVersion: string;
  readonly request: AdmissionRequest;
}

const OLD_OBJECT = ',"oldObject":';
const BRACES = Buffer.from("}}");

/**
 * What comes before the old object: the API server writes fields in the order of their Go type, and none that is read
 * here follows. Undefined when that is not so. A cut anywhere but between two fields of `request` leaves no JSON.
 */
function readHead(body: Buffer): ReadReview | undefined {
  const endBytes = body.indexOf(OLD_OBJECT);
  if (endBytes < 0) return undefined;
  const review = readReview(closedAt(body, endBytes));
  if (typeof review === "string") return undefined;
  const { namespace, name, object } = review.request;
  return namespace === undefined || name === undefined || object === undefined ? undefined : review;
}

/** The text up to there and two braces. They stand in the body for a moment: appended they would cost another copy of the text. */
function closedAt(body: Buffer, endBytes: number): string {
  const behind = body.subarray(endBytes, endBytes + BRACES.length);
  const covered = Buffer.from(behind);
  behind.set(BRACES);
  const text = body.toString("utf8", 0, endBytes + BRACES.length);
  behind.set(covered);
  return text;
}

function readReview(body: string): ReadReview | string {
  let review: unknown;
  try {
    review = JSON.parse(body);
  } catch {
    return "the body is not JSON";
  }
  if (!isObject(review)) return "the body is not an object";
  const { apiVersion, kind, request } = review;
  if (kind !== "AdmissionReview") return "kind is not AdmissionReview";
  if (typeof apiVersion !== "string" || !VERSIONS.includes(apiVersion)) {
    return `apiVersion is none of ${VERSIONS.join(", ")}`;
  }
  if (!isObject(request)) return "request is not an object";
  if (typeof request["uid"] !== "string" || request["uid"] === "") return "request.uid is missing";
  if (typeof request["operation"] !== "string") return "request.operation is missing";
  for (const field of ["namespace", "name"]) {
    const value = request[field];
    if (value !== undefined && typeof value !== "string") return `request.${field} is not a string`;
  }
  return { apiVersion, request: request as unknown as AdmissionRequest };
}

/** Without a copy: an object of some hundred kilobytes is normal. */
function bytesOf(body: Uint8Array | string): Buffer {
  return typeof body === "string"
    ? Buffer.from(body)
    : Buffer.from(body.buffer, body.byteOffset, body.byteLength);
}

function answer(apiVersion: string, uid: string, verdict: AdmissionVerdict): AdmissionReview {
  return { apiVersion, kind: "AdmissionReview", response: { uid, ...respond(verdict) } };
}

function respond(verdict: AdmissionVerdict): Omit<AdmissionReview["response"], "uid"> {
  if (!verdict.allowed) {
    const message = verdict.message.slice(0, MAX_MESSAGE_CHARS);
    return { allowed: false, status: { code: verdict.code, message } };
  }
  const { patch = [], warnings = [] } = verdict;
  return {
    allowed: true,
    ...(patch.length === 0
      ? {}
      : { patchType: "JSONPatch", patch: Buffer.from(JSON.stringify(patch)).toString("base64") }),
    ...(warnings.length === 0
      ? {}
      : { warnings: warnings.slice(0, MAX_WARNINGS).map((text) => text.slice(0, MAX_MESSAGE_CHARS)) }),
  };
}

function deny(code: number, message: string): AdmissionVerdict {
  return { allowed: false, code, message };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
