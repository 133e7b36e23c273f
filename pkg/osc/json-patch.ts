// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from "node:util";
import type { OperatingSystemConfig } from "#api/gardener";

/** One operation of an RFC 6902 patch, as far as they are made here. */
export interface JSONPatchOperation {
  readonly op: "add" | "replace";
  readonly path: string;
  readonly value: unknown;
}

/** The lists that the additions may change, and how to read each. */
const LISTS: readonly (readonly [path: string, read: (osc: OperatingSystemConfig) => unknown])[] = [
  ["/spec/files", (osc) => osc.spec.files],
  ["/spec/units", (osc) => osc.spec.units],
  ["/spec/criConfig/containerd/registries", (osc) => osc.spec.criConfig?.containerd?.registries],
  ["/spec/criConfig/containerd/plugins", (osc) => osc.spec.criConfig?.containerd?.plugins],
];

/** Sets each list that changed as a whole; everything else in the object is left out of the patch and so survives. */
export function toJsonPatch(
  before: OperatingSystemConfig,
  after: OperatingSystemConfig,
): JSONPatchOperation[] {
  return LISTS.flatMap(([path, read]) => {
    const [old, value] = [read(before), read(after)];
    if (isDeepStrictEqual(old, value)) return [];
    const isPresent = old !== undefined && old !== null;
    return [{ op: isPresent ? "replace" : "add", path, value }];
  });
}
