// SPDX-License-Identifier: Apache-2.0
/**
 * The swarm of nodes that tell each other who holds which content: Spegel's Kademlia DHT on libp2p.
 * `openSwarm` is the Router that programs wire; the bootstrap sources say where it finds the first other nodes.
 */
export { parseRouterAddress, type RouterAddress } from "./address-policy.ts";
export { createDnsBootstrap, type ResolveAddresses } from "./bootstrap/dns.ts";
export { bootstrapPeerUrl, createHttpBootstrap, type HttpBootstrapOptions } from "./bootstrap/http.ts";
export { createKubernetesBootstrap, type KubernetesBootstrapOptions } from "./bootstrap/kubernetes.ts";
export { type BootstrapIdServer, serveBootstrapId } from "./bootstrap/serve-id.ts";
export type { BootstrapPeer, BootstrapSource } from "./bootstrap/source.ts";
export { createStaticBootstrap } from "./bootstrap/static.ts";
export { SwarmError, type SwarmErrorCode } from "./errors.ts";
export { createSwarmMetrics, silentSwarmMetrics } from "./metrics.ts";
export type { SwarmMetrics } from "./ports.ts";
export { openSwarm, type Swarm, type SwarmDeps, type SwarmOptions } from "./swarm.ts";
