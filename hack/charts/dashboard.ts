// SPDX-License-Identifier: Apache-2.0
/** The Grafana dashboard of charts/spegel. Every query is over metrics of the daemon, so that it works without recording rules. */

type Unit = "short" | "s" | "bytes" | "Bps" | "percentunit" | "ops" | "dateTimeFromNow";

interface PanelInit {
  readonly title: string;
  readonly about: string;
  readonly kind: "stat" | "timeseries";
  readonly unit: Unit;
  readonly width: number;
  readonly queries: Readonly<Record<string, string>>;
}

const SELECT = 'namespace=~"$namespace", pod=~"$pod"';
const WINDOW = "[$__rate_interval]";

const rate = (metric: string, more = ""): string => `rate(${metric}{${SELECT}${more}}${WINDOW})`;
const quantile = (share: number, metric: string, more = ""): string =>
  `histogram_quantile(${share}, sum by (le) (${rate(`${metric}_bucket`, more)}))`;

const PANELS: readonly PanelInit[] = [
  {
    title: "Nodes",
    about: "Daemons that are scraped.",
    kind: "stat",
    unit: "short",
    width: 4,
    queries: { nodes: `count(spegel_store_connected{${SELECT}})` },
  },
  {
    title: "Hit rate",
    about: "Share of mirror requests that peers answered, over the shown time.",
    kind: "stat",
    unit: "percentunit",
    width: 4,
    queries: {
      "hit rate": `sum(increase(spegel_mirror_requests_total{${SELECT}, registry=~"$registry", cache="hit"}[$__range])) / sum(increase(spegel_mirror_requests_total{${SELECT}, registry=~"$registry"}[$__range]))`,
    },
  },
  {
    title: "Hits",
    about: "Requests that peers answered, over the shown time.",
    kind: "stat",
    unit: "short",
    width: 4,
    queries: {
      hits: `sum(increase(spegel_mirror_requests_total{${SELECT}, registry=~"$registry", cache="hit"}[$__range]))`,
    },
  },
  {
    title: "Misses",
    about: "Requests that no peer could answer; containerd went on to the registry.",
    kind: "stat",
    unit: "short",
    width: 4,
    queries: {
      misses: `sum(increase(spegel_mirror_requests_total{${SELECT}, registry=~"$registry", cache="miss"}[$__range]))`,
    },
  },
  {
    title: "Last hit",
    about: "When a peer last answered.",
    kind: "stat",
    unit: "dateTimeFromNow",
    width: 4,
    queries: { "last hit": `max(spegel_mirror_last_success_timestamp_seconds{${SELECT}}) * 1000` },
  },
  {
    title: "Without containerd",
    about: "Daemons whose content store does not answer.",
    kind: "stat",
    unit: "short",
    width: 4,
    queries: { nodes: `sum(1 - spegel_store_connected{${SELECT}})` },
  },
  {
    title: "Mirror requests",
    about: "By registry and outcome.",
    kind: "timeseries",
    unit: "ops",
    width: 12,
    queries: {
      "{{registry}} {{cache}}": `sum by (registry, cache) (${rate("spegel_mirror_requests_total", ', registry=~"$registry"')})`,
    },
  },
  {
    title: "Content sent",
    about: "Bytes of content, from this node's containerd or relayed from a peer.",
    kind: "timeseries",
    unit: "Bps",
    width: 12,
    queries: { "{{source}}": `sum by (source) (${rate("spegel_sent_bytes_total")})` },
  },
  {
    title: "Time to find a peer",
    about: "From the start of a look-up to each peer that it found.",
    kind: "timeseries",
    unit: "s",
    width: 12,
    queries: {
      p50: quantile(0.5, "spegel_resolve_duration_seconds"),
      p99: quantile(0.99, "spegel_resolve_duration_seconds"),
    },
  },
  {
    title: "Request duration",
    about: "Whole requests to the registry, bodies included.",
    kind: "timeseries",
    unit: "s",
    width: 12,
    queries: {
      p50: quantile(0.5, "http_request_duration_seconds", ', handler="/v2/*"'),
      p99: quantile(0.99, "http_request_duration_seconds", ', handler="/v2/*"'),
    },
  },
  {
    title: "Trouble with peers",
    about: "Answers that could not be used, and peers that were left in the middle of a body.",
    kind: "timeseries",
    unit: "ops",
    width: 12,
    queries: {
      "answer: {{reason}}": `sum by (reason) (${rate("spegel_mirror_peer_failures_total")})`,
      "body: {{reason}}": `sum by (reason) (${rate("spegel_mirror_sources_lost_total")})`,
    },
  },
  {
    title: "Requests under way",
    about: "By node.",
    kind: "timeseries",
    unit: "short",
    width: 12,
    queries: { "{{pod}}": `sum by (pod) (http_requests_inflight{${SELECT}, handler="/v2/*"})` },
  },
  {
    title: "Advertised content",
    about: "Digests that nodes announce, by registry. A digest on two nodes counts twice.",
    kind: "timeseries",
    unit: "short",
    width: 12,
    queries: {
      "{{registry}}": `sum by (registry) (spegel_advertised_content_digests{${SELECT}, registry=~"$registry"})`,
    },
  },
  {
    title: "Advertised images",
    about: "Image digests and tags that nodes announce.",
    kind: "timeseries",
    unit: "short",
    width: 12,
    queries: {
      digests: `sum(spegel_advertised_image_digests{${SELECT}, registry=~"$registry"})`,
      tags: `sum(spegel_advertised_image_tags{${SELECT}, registry=~"$registry"})`,
    },
  },
  {
    title: "Swarm",
    about: "Nodes in the routing tables (least and most), and records of other nodes that are kept.",
    kind: "timeseries",
    unit: "short",
    width: 12,
    queries: {
      "fewest peers": `min(spegel_swarm_peers{${SELECT}})`,
      "most peers": `max(spegel_swarm_peers{${SELECT}})`,
      records: `sum(spegel_swarm_provider_records{${SELECT}})`,
    },
  },
  {
    title: "Memory",
    about: "Resident memory of each daemon.",
    kind: "timeseries",
    unit: "bytes",
    width: 12,
    queries: { "{{pod}}": `spegel_process_resident_bytes{${SELECT}}` },
  },
];

/** All queries, variables included; for the test that each metric exists. */
export function dashboardQueries(): string[] {
  return [...PANELS.flatMap(({ queries }) => Object.values(queries)), ...VARIABLES.map(({ query }) => query)];
}

const VARIABLES = [
  { name: "namespace", query: "label_values(spegel_store_connected, namespace)" },
  { name: "pod", query: 'label_values(spegel_store_connected{namespace=~"$namespace"}, pod)' },
  {
    name: "registry",
    query: 'label_values(spegel_advertised_content_digests{namespace=~"$namespace"}, registry)',
  },
] as const;

const DATASOURCE = { type: "prometheus", uid: "$datasource" } as const;

export function dashboardJSON(): string {
  const dashboard = {
    uid: "spegel-mirror",
    title: "Spegel image mirror",
    tags: ["spegel"],
    schemaVersion: 39,
    editable: true,
    refresh: "30s",
    time: { from: "now-3h", to: "now" },
    templating: {
      list: [
        { name: "datasource", type: "datasource", query: "prometheus", label: "Data source" },
        ...VARIABLES.map(({ name, query }) => ({
          name,
          type: "query",
          datasource: DATASOURCE,
          query: { query, refId: name },
          definition: query,
          refresh: 2,
          sort: 1,
          multi: true,
          includeAll: true,
          allValue: ".*",
          current: { text: "All", value: "$__all" },
        })),
      ],
    },
    panels: layOut(),
  };
  return `${JSON.stringify(dashboard, null, 2)}\n`;
}

function layOut(): object[] {
  let [x, y, rowHeight] = [0, 0, 0];
  return PANELS.map((panel, index) => {
    const height = panel.kind === "stat" ? 4 : 8;
    if (x + panel.width > 24) {
      x = 0;
      y += rowHeight;
      rowHeight = 0;
    }
    const gridPos = { x, y, w: panel.width, h: height };
    x += panel.width;
    rowHeight = Math.max(rowHeight, height);
    return {
      id: index + 1,
      type: panel.kind,
      title: panel.title,
      description: panel.about,
      datasource: DATASOURCE,
      gridPos,
      fieldConfig: {
        defaults: { unit: panel.unit, min: panel.unit === "dateTimeFromNow" ? null : 0 },
        overrides: [],
      },
      options:
        panel.kind === "stat"
          ? { reduceOptions: { calcs: ["lastNotNull"] }, colorMode: "none" }
          : {
              legend: { displayMode: "list", placement: "bottom" },
              tooltip: { mode: "multi", sort: "desc" },
            },
      targets: Object.entries(panel.queries).map(([legend, expr], target) => ({
        refId: String.fromCharCode(65 + target),
        datasource: DATASOURCE,
        expr,
        legendFormat: legend,
        instant: panel.kind === "stat",
        range: panel.kind !== "stat",
      })),
    };
  });
}
