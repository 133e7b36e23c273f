// SPDX-License-Identifier: Apache-2.0

/** The body of every failure: meta/v1 Status. */
export class ApiStatus extends Error {
  readonly code: number;
  readonly reason: string;
  /** Of what it is about; absent when that is no object. */
  readonly details?: { readonly kind: string; readonly name: string };

  constructor(code: number, reason: string, message: string, details?: ApiStatus["details"]) {
    super(message);
    if (details) this.details = details;
    this.code = code;
    this.reason = reason;
  }

  toJSON(): object {
    return {
      kind: "Status",
      apiVersion: "v1",
      metadata: {},
      status: "Failure",
      message: this.message,
      reason: this.reason,
      ...(this.details && { details: this.details }),
      code: this.code,
    };
  }
}

export const notFound = (what: string, name: string): ApiStatus =>
  new ApiStatus(404, "NotFound", `${what} "${name}" not found`, { kind: what, name });
export const alreadyExists = (what: string, name: string): ApiStatus =>
  new ApiStatus(409, "AlreadyExists", `${what} "${name}" already exists`);
export const conflict = (what: string, name: string, why: string): ApiStatus =>
  new ApiStatus(409, "Conflict", `Operation cannot be fulfilled on ${what} "${name}": ${why}`);
export const badRequest = (message: string): ApiStatus => new ApiStatus(400, "BadRequest", message);
export const invalid = (kind: string, name: string, message: string): ApiStatus =>
  new ApiStatus(422, "Invalid", `${kind} "${name}" is invalid: ${message}`);
export const expired = (message: string): ApiStatus => new ApiStatus(410, "Expired", message);
export const internal = (message: string): ApiStatus =>
  new ApiStatus(500, "InternalError", `Internal error occurred: ${message}`);
