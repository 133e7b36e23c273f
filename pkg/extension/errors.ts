// SPDX-License-Identifier: Apache-2.0
import type { GardenerErrorCode } from "#api/gardener";
import { CodedError } from "#errors";

export type ExtensionErrorCode =
  | "EXTENSION_CLUSTER_INVALID"
  | "EXTENSION_CONFIG_INVALID"
  | "EXTENSION_GONE"
  | "EXTENSION_HOST_INVALID"
  | "EXTENSION_NOT_HEALTHY"
  | "EXTENSION_NOT_DELETED";

/** Something of ours that is on its way out, and has to be gone before it is made again. */
export function stillLeaving(what: string): ExtensionError {
  return new ExtensionError({
    code: "EXTENSION_NOT_DELETED",
    message: `${what} is still being deleted; it is made again once it is gone`,
  });
}

/** Nobody is left to report to. */
export function goneMeanwhile(cause: unknown): ExtensionError {
  return new ExtensionError({
    code: "EXTENSION_GONE",
    message: "the Extension was deleted while it was worked on",
    cause,
  });
}

/** An error that says how it is reported to Gardener and whether trying again helps. */
export class ExtensionError extends CodedError<ExtensionErrorCode> {
  override readonly name = "ExtensionError";
  /** Goes into `status.lastError.codes`. */
  readonly gardenerCodes: readonly GardenerErrorCode[];
  /** `never`: only a change of the Extension helps, and that brings a new event. */
  readonly retry: "backoff" | "never";

  constructor(init: {
    readonly code: ExtensionErrorCode;
    readonly message: string;
    readonly cause?: unknown;
    readonly gardenerCodes?: readonly GardenerErrorCode[];
    readonly retry?: "backoff" | "never";
  }) {
    super(init);
    this.gardenerCodes = init.gardenerCodes ?? [];
    this.retry = init.retry ?? "backoff";
  }
}
