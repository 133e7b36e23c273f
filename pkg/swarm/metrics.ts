// SPDX-License-Identifier: Apache-2.0
import type { Metrics } from "#metrics";
import type { SwarmMetrics } from "./ports.ts";

/** The swarm's instruments; `spegel_resolve_duration_seconds` is Spegel's own. */
export function createSwarmMetrics(metrics: Metrics): SwarmMetrics {
  const resolveDuration = metrics.histogram({
    name: "spegel_resolve_duration_seconds",
    help: "Time from the start of a look-up to each peer that it found.",
    labels: ["router"],
  });
  return {
    resolved: (seconds) => resolveDuration.observe(seconds, { router: "libp2p" }),
    observe({ peers, providerRecords, ownKeys }) {
      metrics.observedGauge({ name: "spegel_swarm_peers", help: "Nodes in the routing table." }, peers);
      metrics.observedGauge(
        { name: "spegel_swarm_provider_records", help: "Records of other nodes that are kept here." },
        providerRecords,
      );
      metrics.observedGauge(
        { name: "spegel_swarm_own_keys", help: "Keys that this node announces." },
        ownKeys,
      );
    },
  };
}

/** For tests and programs without a metrics server. */
export const silentSwarmMetrics: SwarmMetrics = { resolved: () => {}, observe: () => {} };
