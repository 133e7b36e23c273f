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

/**
 * The operations that make `after` of `before`: per entry where entries were changed in place or appended, so that an
 * answer does not carry all files of a node back; a list that changed otherwise is set as a whole. Everything else in
 * the object is left out and so survives.
 */
export function toJsonPatch(
  before: OperatingSystemConfig,
  after: OperatingSystemConfig,
): JSONPatchOperation[] {
  return LISTS.flatMap(([path, read]) => listOperations(path, read(before), read(after)));
}

function listOperations(path: string, old: unknown, wanted: unknown): JSONPatchOperation[] {
  if (isSame(old, wanted)) return [];
  if (old === undefined || old === null) return [{ op: "add", path, value: wanted }];
  if (!Array.isArray(old) || !Array.isArray(wanted) || wanted.length < old.length)
    return [{ op: "replace", path, value: wanted }];
  return wanted.flatMap((value: unknown, index): JSONPatchOperation[] => {
    if (index >= old.length) return [{ op: "add", path: `${path}/-`, value }];
    return isSame(old[index], value) ? [] : [{ op: "replace", path: `${path}/${index}`, value }];
  });
}

/** What the additions do not touch stays the very same value. */
function isSame(left: unknown, right: unknown): boolean {
  return left === right || isDeepStrictEqual(left, right);
}
