// SPDX-License-Identifier: Apache-2.0
import type { ObjectMeta } from "./meta.ts";

/** `resources.gardener.cloud/v1alpha1` ManagedResource. */
export interface ManagedResource {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: ObjectMeta;
  readonly spec: {
    /** `seed`, or absent: the objects then go to the Shoot. */
    readonly class?: string;
    readonly secretRefs: readonly { readonly name: string }[];
    readonly injectLabels?: Readonly<Record<string, string>>;
    readonly keepObjects?: boolean;
  };
  readonly status?: {
    readonly observedGeneration?: number;
    readonly conditions?: readonly ManagedResourceCondition[];
  };
}

export interface ManagedResourceCondition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
}
