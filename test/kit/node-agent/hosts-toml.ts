// SPDX-License-Identifier: Apache-2.0
import type { RegistryConfig, RegistryHost } from "#api/gardener";

/** `certs.d/<upstream>/hosts.toml`, byte for byte as the gardener-node-agent writes it. */
export function renderHostsToml(registry: RegistryConfig): string {
  const server = registry.server ? `server = "${registry.server}"\n\n` : "";
  return `# managed by gardener-node-agent\n${server}${(registry.hosts ?? []).map(renderHost).join("")}`;
}

function renderHost(host: RegistryHost): string {
  const capabilities = host.capabilities?.length ? host.capabilities : ["pull", "resolve"];
  const lines = [`[host."${host.url}"]`, `  capabilities = ${JSON.stringify(capabilities)}`];
  if (host.caCerts?.length) lines.push(`  ca = ${JSON.stringify(host.caCerts)}`);
  if (host.overridePath) lines.push("  override_path = true");
  return `${lines.join("\n")}\n\n`;
}
