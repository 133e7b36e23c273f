// SPDX-License-Identifier: Apache-2.0
/** The fields this project uses of Gardener's resources; all other fields pass through untouched. */

export type * from "./cluster.ts";
export type * from "./extension.ts";
export type * from "./managed-resource.ts";
export type * from "./meta.ts";
export type * from "./operating-system-config.ts";
