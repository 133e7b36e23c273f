// SPDX-License-Identifier: Apache-2.0
import type { ObjectMeta } from "./meta.ts";

/** `extensions.gardener.cloud/v1alpha1` Extension. */
export interface Extension {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: ObjectMeta;
  readonly spec: {
    readonly type: string;
    /** `garden`, `seed` or `shoot`; gardenlet leaves it out for Shoots. */
    readonly class?: string;
    readonly providerConfig?: unknown;
  };
  readonly status?: ExtensionStatus;
}

export interface ExtensionStatus {
  readonly observedGeneration?: number;
  readonly lastOperation?: LastOperation;
  /** gardenlet regards an Extension with one as not ready. */
  readonly lastError?: LastError;
  readonly providerStatus?: unknown;
}

export type OperationType = "Create" | "Reconcile" | "Delete" | "Migrate" | "Restore";
export type OperationState = "Processing" | "Succeeded" | "Error" | "Failed" | "Pending" | "Aborted";

export interface LastOperation {
  readonly type: OperationType;
  readonly state: OperationState;
  /** Percent. */
  readonly progress: number;
  readonly description: string;
  /** RFC 3339, UTC, whole seconds. */
  readonly lastUpdateTime: string;
}

export interface LastError {
  readonly description: string;
  readonly codes?: readonly GardenerErrorCode[];
  readonly lastUpdateTime?: string;
}

/** The codes of `core.gardener.cloud/v1beta1` that this project uses. */
export type GardenerErrorCode = "ERR_CONFIGURATION_PROBLEM" | "ERR_RETRYABLE_CONFIGURATION_PROBLEM";
