// SPDX-License-Identifier: Apache-2.0
/** The dashboard for a Shoot's Plutono, which has the panels of Grafana 7. */
import { BOOTSTRAPPER_JOB, NODE_JOB } from "./alerts.ts";
import { daemonPanels, layOut, type Panel } from "./panels.ts";

const NODES = `job="${NODE_JOB}"`;
const BOOTSTRAPPER = `job="${BOOTSTRAPPER_JOB}"`;
const SIZE = { number: { w: 6, h: 4 }, lines: { w: 12, h: 8 } } as const;

const daemons = daemonPanels({ daemons: NODES, registries: "", instance: "node" });

const PANELS: readonly Panel[] = [
  daemons.nodes,
  {
    title: "Nodes without it",
    about: "Nodes whose node-exporter answers and that give no metrics of the mirror.",
    kind: "number",
    unit: "short",
    queries: {
      nodes: `count(up{${NODES}} == 1 unless on (pod) spegel_store_connected{${NODES}}) or vector(0)`,
    },
  },
  daemons.hitRate,
  {
    title: "Nodes that the bootstrapper knows",
    about: "It hands out some of them to nodes that start.",
    kind: "number",
    unit: "short",
    queries: { nodes: `max(spegel_bootstrapper_nodes{${BOOTSTRAPPER}})` },
  },
  daemons.requests,
  daemons.sent,
  daemons.findTime,
  daemons.trouble,
  daemons.swarm,
  daemons.contents,
  daemons.memory,
  {
    title: "Requests to the bootstrapper",
    about: "By status, and connections that ended in their TLS handshake.",
    kind: "lines",
    unit: "ops",
    queries: {
      "{{code}}": `sum by (code) (rate(spegel_bootstrapper_requests_total{${BOOTSTRAPPER}}[$__rate_interval]))`,
      handshake: `sum(rate(spegel_bootstrapper_handshake_failures_total{${BOOTSTRAPPER}}[$__rate_interval]))`,
    },
  },
];

/** A pure function of nothing: equal text in every Shoot. */
export function shootDashboardJSON(): string {
  return JSON.stringify({
    uid: "registry-spegel",
    title: "Image mirror (registry-spegel)",
    tags: ["registry-spegel", "shoot"],
    schemaVersion: 27,
    refresh: "1m",
    time: { from: "now-3h", to: "now" },
    panels: layOut(PANELS, SIZE).map(({ panel, id, gridPos }) => ({
      id,
      type: panel.kind === "number" ? "stat" : "graph",
      title: panel.title,
      description: panel.about,
      datasource: "prometheus",
      gridPos,
      ...look(panel),
      targets: Object.entries(panel.queries).map(([legendFormat, expr], target) => ({
        refId: String.fromCharCode(65 + target),
        expr,
        legendFormat,
        ...(panel.kind === "number" && { instant: true }),
      })),
    })),
  });
}

function look({ kind, unit }: Panel): object {
  if (kind === "number")
    return {
      fieldConfig: { defaults: { unit }, overrides: [] },
      options: { reduceOptions: { calcs: ["lastNotNull"] }, colorMode: "none" },
    };
  return {
    lines: true,
    linewidth: 1,
    fill: 1,
    nullPointMode: "null",
    legend: { show: true, values: false },
    tooltip: { shared: true, sort: 2, value_type: "individual" },
    xaxis: { mode: "time", show: true },
    yaxes: [
      { format: unit, min: "0", show: true },
      { format: "short", show: false },
    ],
  };
}
