// SPDX-License-Identifier: Apache-2.0
import type { ObjectMeta } from "./meta.ts";

/**
 * `extensions.gardener.cloud/v1alpha1` Cluster: the Shoot, Seed and CloudProfile as gardenlet last synced them.
 * Its name is the Shoot's namespace in the seed. Every field is optional here: it is foreign input.
 */
export interface Cluster {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: ObjectMeta;
  readonly spec?: {
    readonly shoot?: Shoot | null;
    /** Absent for self-hosted Shoots. */
    readonly seed?: Seed | null;
  };
}

/** `core.gardener.cloud/v1beta1` Shoot. */
export interface Shoot {
  readonly metadata?: Partial<ObjectMeta>;
  readonly spec?: {
    readonly purpose?: string;
    readonly hibernation?: { readonly enabled?: boolean };
    readonly networking?: { readonly ipFamilies?: readonly string[] };
    readonly provider?: {
      readonly workers?: readonly { readonly name?: string; readonly controlPlane?: object | null }[];
    };
  };
  readonly status?: {
    readonly technicalID?: string;
    readonly lastOperation?: { readonly state?: string };
    readonly credentials?: {
      readonly rotation?: {
        readonly certificateAuthorities?: {
          readonly phase?: string;
          /** RFC 3339. */
          readonly lastInitiationTime?: string;
        };
      };
    };
  };
}

/** `core.gardener.cloud/v1beta1` Seed. */
export interface Seed {
  readonly spec?: { readonly ingress?: { readonly domain?: string } };
}
