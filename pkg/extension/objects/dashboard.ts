// SPDX-License-Identifier: Apache-2.0
/** The dashboard for a Shoot's Plutono, which has the panels of Grafana 7. */
import { BOOTSTRAPPER_JOB, NODE_JOB } from "./alerts.ts";

type Unit = "short" | "percentunit" | "ops" | "Bps" | "s" | "bytes";

interface Panel {
  readonly title: string;
  readonly about: string;
  readonly kind: "stat" | "graph";
  readonly unit: Unit;
  /** Expression by legend. */
  readonly queries: Readonly<Record<string, string>>;
}

const NODES = `job="${NODE_JOB}"`;
const BOOTSTRAPPER = `job="${BOOTSTRAPPER_JOB}"`;
const PANELS_IN_A_ROW = { stat: 4, graph: 2 } as const;
const HEIGHT = { stat: 4, graph: 8 } as const;
const WIDTH = 24;

const hits = (window: string, more = ""): string =>
  `sum(increase(spegel_mirror_requests_total{${NODES}${more}}[${window}]))`;
const quantile = (share: number, metric: string, more = ""): string =>
  `histogram_quantile(${share}, sum by (le) (rate(${metric}_bucket{${NODES}${more}}[$__rate_interval])))`;

const PANELS: readonly Panel[] = [
  {
    title: "Nodes with the mirror",
    about: "Daemons that run.",
    kind: "stat",
    unit: "short",
    queries: { nodes: `count(spegel_store_connected{${NODES}})` },
  },
  {
    title: "Nodes without it",
    about: "Nodes whose node-exporter answers and that give no metrics of the mirror.",
    kind: "stat",
    unit: "short",
    queries: {
      nodes: `count(up{${NODES}} == 1 unless on (pod) spegel_store_connected{${NODES}}) or vector(0)`,
    },
  },
  {
    title: "Hit rate",
    about: "Share of mirror requests that other nodes answered, over the shown time.",
    kind: "stat",
    unit: "percentunit",
    queries: { "hit rate": `${hits("$__range", ', cache="hit"')} / ${hits("$__range")}` },
  },
  {
    title: "Nodes that the bootstrapper knows",
    about: "It hands out some of them to nodes that start.",
    kind: "stat",
    unit: "short",
    queries: { nodes: `max(spegel_bootstrapper_nodes{${BOOTSTRAPPER}})` },
  },
  {
    title: "Mirror requests",
    about: "By registry and outcome. After a miss containerd goes to the registry.",
    kind: "graph",
    unit: "ops",
    queries: {
      "{{registry}} {{cache}}": `sum by (registry, cache) (rate(spegel_mirror_requests_total{${NODES}}[$__rate_interval]))`,
    },
  },
  {
    title: "Content sent",
    about: "Bytes from a node's own containerd, or relayed from another node.",
    kind: "graph",
    unit: "Bps",
    queries: { "{{source}}": `sum by (source) (rate(spegel_sent_bytes_total{${NODES}}[$__rate_interval]))` },
  },
  {
    title: "Time to find a node",
    about: "From the start of a look-up to each node that it found.",
    kind: "graph",
    unit: "s",
    queries: {
      p50: quantile(0.5, "spegel_resolve_duration_seconds"),
      p99: quantile(0.99, "spegel_resolve_duration_seconds"),
    },
  },
  {
    title: "Trouble with other nodes",
    about: "Answers that could not be used, and nodes that were left in the middle of a body.",
    kind: "graph",
    unit: "ops",
    queries: {
      "answer: {{reason}}": `sum by (reason) (rate(spegel_mirror_peer_failures_total{${NODES}}[$__rate_interval]))`,
      "body: {{reason}}": `sum by (reason) (rate(spegel_mirror_sources_lost_total{${NODES}}[$__rate_interval]))`,
    },
  },
  {
    title: "Swarm",
    about: "Nodes in the routing tables, least and most, and digests that nodes announce.",
    kind: "graph",
    unit: "short",
    queries: {
      "fewest nodes": `min(spegel_swarm_peers{${NODES}})`,
      "most nodes": `max(spegel_swarm_peers{${NODES}})`,
      digests: `sum(spegel_advertised_content_digests{${NODES}})`,
    },
  },
  {
    title: "Memory",
    about: "Resident memory of the daemon on each node.",
    kind: "graph",
    unit: "bytes",
    queries: { "{{node}}": `spegel_process_resident_bytes{${NODES}}` },
  },
  {
    title: "Requests to the bootstrapper",
    about: "By status, and connections that ended in their TLS handshake.",
    kind: "graph",
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
    panels: layOut(),
  });
}

function layOut(): object[] {
  let [x, y, rowHeight] = [0, 0, 0];
  return PANELS.map((panel, index) => {
    const width = WIDTH / PANELS_IN_A_ROW[panel.kind];
    const height = HEIGHT[panel.kind];
    if (x + width > WIDTH) {
      x = 0;
      y += rowHeight;
      rowHeight = 0;
    }
    const gridPos = { x, y, w: width, h: height };
    x += width;
    rowHeight = Math.max(rowHeight, height);
    return {
      id: index + 1,
      type: panel.kind,
      title: panel.title,
      description: panel.about,
      datasource: "prometheus",
      gridPos,
      ...look(panel),
      targets: Object.entries(panel.queries).map(([legendFormat, expr], target) => ({
        refId: String.fromCharCode(65 + target),
        expr,
        legendFormat,
        ...(panel.kind === "stat" && { instant: true }),
      })),
    };
  });
}

function look({ kind, unit }: Panel): object {
  if (kind === "stat")
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
