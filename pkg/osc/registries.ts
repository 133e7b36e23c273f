// SPDX-License-Identifier: Apache-2.0
import type { OperatingSystemConfig, RegistryCapability, RegistryConfig, RegistryHost } from "#api/gardener";
import { DEFAULT_UPSTREAM } from "#nodelayout";
import type { NodeSettings } from "./context.ts";
import { upsert, withContainerd } from "./draft.ts";

/**
 * Puts the local spegel first in every registry entry, and makes it the mirror of all others.
 *
 * containerd looks at `_default` only when an upstream has no folder of its own, hence the host in each entry.
 * Order, `server`, `readinessProbe` and the other hosts of an entry stay as they are. `_default` gets neither a
 * `server`, which would redirect every registry, nor a probe, with which a dead spegel would hold up the node.
 *
 * Entries with a probe may be left to themselves, see `OSCOptions.mirrorProbedRegistries`.
 *
 * @param formerPorts ports under which an earlier call may have put spegel into this object
 */
export function addRegistries(
  osc: OperatingSystemConfig,
  node: NodeSettings,
  formerPorts: readonly number[],
): OperatingSystemConfig {
  const url = localURL(node.registryPort);
  const ownURLs = new Set([url, ...formerPorts.map(localURL)]);
  const prepend = (entry: RegistryConfig): RegistryConfig => {
    const others = (entry.hosts ?? []).filter((host) => !ownURLs.has(host.url));
    if (entry.readinessProbe === true && node.mirrorProbedRegistries === false) {
      return others.length === (entry.hosts ?? []).length ? entry : { ...entry, hosts: others };
    }
    const capabilities =
      entry.upstream === DEFAULT_UPSTREAM ? node.capabilities : allowed(node.capabilities, others);
    return { ...entry, hosts: [{ url, capabilities }, ...others] };
  };
  return withContainerd(osc, ({ registries }) => {
    const entries = (registries ?? []).map(prepend);
    const existing = entries.find((entry) => entry.upstream === DEFAULT_UPSTREAM);
    const entry = existing ?? prepend({ upstream: DEFAULT_UPSTREAM });
    return { registries: upsert(entries, entry, (other) => other.upstream === DEFAULT_UPSTREAM) };
  });
}

function localURL(port: number): string {
  return `http://localhost:${port}`;
}

/** Who has mirrors that only pull wants tags resolved by the upstream; a mirror in front must not change that. */
function allowed(
  capabilities: readonly RegistryCapability[],
  others: readonly RegistryHost[],
): readonly RegistryCapability[] {
  const mayResolve = others.length === 0 || others.some((host) => capabilitiesOf(host).includes("resolve"));
  return mayResolve ? capabilities : capabilities.filter((capability) => capability !== "resolve");
}

/** An absent or empty list means the node's default. */
function capabilitiesOf(host: RegistryHost): readonly RegistryCapability[] {
  return host.capabilities?.length ? host.capabilities : ["pull", "resolve"];
}
