// SPDX-License-Identifier: Apache-2.0
import { parse, stringify, type TomlTable } from "smol-toml";
import type { ContainerdConfig, CRIConfig } from "#api/gardener";

const CRI_V2 = "io.containerd.grpc.v1.cri";
const IMAGES_V3 = "io.containerd.cri.v1.images";
const RUNTIME_V3 = "io.containerd.cri.v1.runtime";
const CERTS_DIRECTORY = "/etc/containerd/certs.d";
const IMPORTS = "/etc/containerd/conf.d/*.toml";

/** containerd's config.toml after the node agent has patched it. The file's `version` decides where keys go. */
export function patchContainerdConfig(text: string, cri: CRIConfig, containerd: ContainerdConfig): string {
  const config = parse(text);
  const version = typeof config["version"] === "number" ? config["version"] : 1;
  if (![1, 2, 3, 4].includes(version)) throw new Error(`unsupported containerd config version ${version}`);
  const isSplit = version >= 3;
  set(config, ["plugins", isSplit ? IMAGES_V3 : CRI_V2, "registry", "config_path"], CERTS_DIRECTORY);
  const sandbox = isSplit ? [IMAGES_V3, "pinned_images", "sandbox"] : [CRI_V2, "sandbox_image"];
  set(config, ["plugins", ...sandbox], containerd.sandboxImage);
  const runtime = isSplit ? RUNTIME_V3 : CRI_V2;
  set(
    config,
    ["plugins", runtime, "containerd", "runtimes", "runc", "options", "SystemdCgroup"],
    cri.cgroupDriver === "systemd",
  );
  const imports = (config["imports"] ?? []) as string[];
  if (!imports.includes(IMPORTS)) config["imports"] = [...imports, IMPORTS];
  for (const plugin of containerd.plugins ?? []) {
    const path = ["plugins", ...(isSplit ? rewriteRuntimes(plugin.path) : plugin.path)];
    if (plugin.op === "remove") remove(config, path);
    else Object.assign(table(config, path), plugin.values ?? {});
  }
  return stringify(config);
}

/** The only rewrite the node agent knows. */
function rewriteRuntimes(path: readonly string[]): readonly string[] {
  const [plugin, section, runtimes, ...rest] = path;
  if (plugin !== CRI_V2 || section !== "containerd" || runtimes !== "runtimes") return path;
  return [RUNTIME_V3, section, runtimes, ...rest];
}

function set(config: TomlTable, path: readonly string[], value: string | boolean): void {
  table(config, path.slice(0, -1))[path.at(-1) as string] = value;
}

function table(config: TomlTable, path: readonly string[]): TomlTable {
  let at = config;
  for (const segment of path) {
    if (!Object.hasOwn(at, segment)) at[segment] = {};
    at = at[segment] as TomlTable;
  }
  return at;
}

function remove(config: TomlTable, path: readonly string[]): void {
  delete table(config, path.slice(0, -1))[path.at(-1) as string];
}
