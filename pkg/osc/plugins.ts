// SPDX-License-Identifier: Apache-2.0
import type { JSONValue, OperatingSystemConfig, PluginConfig } from "#api/gardener";
import { upsert, withContainerd } from "./draft.ts";

/**
 * Where containerd keeps its image settings: config version 2 (containerd 1.7), and versions 3 and 4 (2.x).
 * The node agent does not translate one to the other; the table that does not match is ignored.
 *
 * The node agent restarts containerd when this list changes in any way, order and spelling included: keep it.
 */
const IMAGE_SETTINGS_PATHS: readonly (readonly string[])[] = [
  ["io.containerd.grpc.v1.cri", "containerd"],
  ["io.containerd.cri.v1.images"],
];

/** Keeps compressed layers after they are unpacked, else a node would have nothing to share. */
const VALUES = { discard_unpacked_layers: false } as const;

/** Both tables get the setting; values that others set in the same table stay. */
export function addContainerdPlugins(osc: OperatingSystemConfig): OperatingSystemConfig {
  return withContainerd(osc, ({ plugins }) => ({
    plugins: IMAGE_SETTINGS_PATHS.reduce(addValues, plugins ?? []),
  }));
}

function addValues(plugins: readonly PluginConfig[], path: readonly string[]): readonly PluginConfig[] {
  const isTable = (plugin: PluginConfig): boolean => plugin.op !== "remove" && isSamePath(plugin.path, path);
  const existing = plugins.findLast(isTable);
  if (existing === undefined) return [...plugins, { op: "add", path, values: VALUES }];
  const values = { ...tableOf(existing.values), ...VALUES };
  return upsert(plugins, { ...existing, values }, (plugin) => plugin === existing);
}

/** Anything but a table is no value for a plugin; the API server will say so if it stays. */
function tableOf(values: PluginConfig["values"]): Readonly<Record<string, JSONValue>> {
  const isTable = typeof values === "object" && values !== null && !Array.isArray(values);
  return isTable ? (values as Readonly<Record<string, JSONValue>>) : {};
}

function isSamePath(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((segment, index) => segment === right[index]);
}
