// SPDX-License-Identifier: Apache-2.0
import type { ContainerdConfig, File, OperatingSystemConfig, Unit } from "#api/gardener";

/** Replaces the entries that `isSame` by `entry`, at the place of the first; appends it when there is none. */
export function upsert<T>(
  list: readonly T[] | null | undefined,
  entry: T,
  isSame: (other: T) => boolean,
): T[] {
  const entries = list ?? [];
  const at = entries.findIndex(isSame);
  if (at < 0) return [...entries, entry];
  return [...entries.slice(0, at), entry, ...entries.slice(at + 1).filter((other) => !isSame(other))];
}

/** The file replaces one of the same path as a whole, as Gardener's own webhooks do. */
export function upsertFile(osc: OperatingSystemConfig, file: File): OperatingSystemConfig {
  const files = upsert(osc.spec.files, file, (other) => other.path === file.path);
  return { ...osc, spec: { ...osc.spec, files } };
}

/** Without the file of that path, and the same object when there is none. */
export function removeFile(osc: OperatingSystemConfig, path: string): OperatingSystemConfig {
  const files = osc.spec.files ?? [];
  if (!files.some((file) => file.path === path)) return osc;
  return { ...osc, spec: { ...osc.spec, files: files.filter((file) => file.path !== path) } };
}

/** The unit's fields replace those of a unit of the same name; others, such as drop-ins somebody added, stay. */
export function upsertUnit(osc: OperatingSystemConfig, unit: Unit): OperatingSystemConfig {
  const existing = osc.spec.units?.find((other) => other.name === unit.name);
  const units = upsert(osc.spec.units, { ...existing, ...unit }, (other) => other.name === unit.name);
  return { ...osc, spec: { ...osc.spec, units } };
}

/** Changes fields of `spec.criConfig.containerd`, which must exist. */
export function withContainerd(
  osc: OperatingSystemConfig,
  change: (containerd: ContainerdConfig) => Partial<ContainerdConfig>,
): OperatingSystemConfig {
  const { criConfig } = osc.spec;
  if (!criConfig?.containerd)
    throw new TypeError("the OperatingSystemConfig has no containerd configuration");
  const containerd = { ...criConfig.containerd, ...change(criConfig.containerd) };
  return { ...osc, spec: { ...osc.spec, criConfig: { ...criConfig, containerd } } };
}
