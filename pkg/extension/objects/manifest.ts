// SPDX-License-Identifier: Apache-2.0
import type { KubeObject } from "#kube";

/** An object as it is written into a payload. */
export interface Manifest extends KubeObject {
  readonly [field: string]: unknown;
}
