// SPDX-License-Identifier: Apache-2.0
/**
 * What dashboards show of the daemons: one source for the Plutono of a Shoot and for Grafana beside charts/spegel.
 * Every query is over metrics of the daemon itself, so that it needs no recording rules.
 */

type Unit = "short" | "percentunit" | "ops" | "Bps" | "s" | "bytes" | "dateTimeFromNow";

export interface Panel {
  readonly title: string;
  readonly about: string;
  /** One number, or lines over time. */
  readonly kind: "number" | "lines";
  readonly unit: Unit;
  /** Expression by legend. */
  readonly queries: Readonly<Record<string, string>>;
}

/** How a Prometheus labels the daemons. */
interface Scope {
  /** Matchers of their series, e.g. `job="spegel"`. */
  readonly daemons: string;
  /** Further matchers of series with a label `registry`; empty for all registries. */
  readonly registries: string;
  /** The label by which they differ. */
  readonly instance: "node" | "pod";
}

type DaemonPanel =
  | "nodes"
  | "withoutContainerd"
  | "hitRate"
  | "hits"
  | "misses"
  | "lastHit"
  | "requests"
  | "sent"
  | "findTime"
  | "requestTime"
  | "trouble"
  | "underWay"
  | "contents"
  | "images"
  | "swarm"
  | "records"
  | "memory";

/** Panels by what they are about. */
export function daemonPanels(scope: Scope): Readonly<Record<DaemonPanel, Panel>> {
  const { daemons, instance } = scope;
  const ofRegistries = [daemons, scope.registries].filter((matchers) => matchers !== "").join(", ");
  const rate = (metric: string, matchers = daemons): string =>
    `rate(${metric}{${matchers}}[$__rate_interval])`;
  const answered = (cache: string): string =>
    `sum(increase(spegel_mirror_requests_total{${ofRegistries}${cache}}[$__range]))`;
  const quantiles = (metric: string, matchers = daemons): Record<string, string> => {
    const of = (share: number): string =>
      `histogram_quantile(${share}, sum by (le) (${rate(`${metric}_bucket`, matchers)}))`;
    return { p50: of(0.5), p99: of(0.99) };
  };
  const isPull = `${daemons}, handler="/v2/*"`;
  return {
    nodes: {
      title: "Nodes with the mirror",
      about: "Daemons that run.",
      kind: "number",
      unit: "short",
      queries: { nodes: `count(spegel_store_connected{${daemons}})` },
    },
    withoutContainerd: {
      title: "Without containerd",
      about: "Daemons whose content store does not answer.",
      kind: "number",
      unit: "short",
      queries: { nodes: `sum(1 - spegel_store_connected{${daemons}})` },
    },
    hitRate: {
      title: "Hit rate",
      about: "Share of mirror requests that other nodes answered, over the shown time.",
      kind: "number",
      unit: "percentunit",
      queries: { "hit rate": `${answered(', cache="hit"')} / ${answered("")}` },
    },
    hits: {
      title: "Hits",
      about: "Requests that other nodes answered, over the shown time.",
      kind: "number",
      unit: "short",
      queries: { hits: answered(', cache="hit"') },
    },
    misses: {
      title: "Misses",
      about: "Requests that no other node could answer; containerd went on to the registry.",
      kind: "number",
      unit: "short",
      queries: { misses: answered(', cache="miss"') },
    },
    lastHit: {
      title: "Last hit",
      about: "When another node last answered.",
      kind: "number",
      unit: "dateTimeFromNow",
      queries: { "last hit": `max(spegel_mirror_last_success_timestamp_seconds{${daemons}}) * 1000` },
    },
    requests: {
      title: "Mirror requests",
      about: "By registry and outcome. After a miss containerd goes to the registry.",
      kind: "lines",
      unit: "ops",
      queries: {
        "{{registry}} {{cache}}": `sum by (registry, cache) (${rate("spegel_mirror_requests_total", ofRegistries)})`,
      },
    },
    sent: {
      title: "Content sent",
      about: "Bytes from a node's own containerd, or relayed from another node.",
      kind: "lines",
      unit: "Bps",
      queries: { "{{source}}": `sum by (source) (${rate("spegel_sent_bytes_total")})` },
    },
    findTime: {
      title: "Time to find a node",
      about: "From the start of a look-up to each node that it found.",
      kind: "lines",
      unit: "s",
      queries: quantiles("spegel_resolve_duration_seconds"),
    },
    requestTime: {
      title: "Request duration",
      about: "Whole requests to the registry, bodies included.",
      kind: "lines",
      unit: "s",
      queries: quantiles("http_request_duration_seconds", isPull),
    },
    trouble: {
      title: "Trouble with other nodes",
      about: "Answers that could not be used, and nodes that were left in the middle of a body.",
      kind: "lines",
      unit: "ops",
      queries: {
        "answer: {{reason}}": `sum by (reason) (${rate("spegel_mirror_peer_failures_total")})`,
        "body: {{reason}}": `sum by (reason) (${rate("spegel_mirror_sources_lost_total")})`,
      },
    },
    underWay: {
      title: "Requests under way",
      about: "By node.",
      kind: "lines",
      unit: "short",
      queries: { [`{{${instance}}}`]: `sum by (${instance}) (http_requests_inflight{${isPull}})` },
    },
    contents: {
      title: "Advertised content",
      about: "Digests that nodes announce, by registry. A digest on two nodes counts twice.",
      kind: "lines",
      unit: "short",
      queries: {
        "{{registry}}": `sum by (registry) (spegel_advertised_content_digests{${ofRegistries}})`,
      },
    },
    images: {
      title: "Advertised images",
      about: "Image digests and tags that nodes announce.",
      kind: "lines",
      unit: "short",
      queries: {
        digests: `sum(spegel_advertised_image_digests{${ofRegistries}})`,
        tags: `sum(spegel_advertised_image_tags{${ofRegistries}})`,
      },
    },
    swarm: {
      title: "Swarm",
      about: "Nodes in the routing tables, least and most.",
      kind: "lines",
      unit: "short",
      queries: {
        "fewest nodes": `min(spegel_swarm_peers{${daemons}})`,
        "most nodes": `max(spegel_swarm_peers{${daemons}})`,
      },
    },
    records: {
      title: "Records",
      about: "Who has what, as nodes keep it for others.",
      kind: "lines",
      unit: "short",
      queries: { records: `sum(spegel_swarm_provider_records{${daemons}})` },
    },
    memory: {
      title: "Memory",
      about: "Resident memory of the daemon on each node.",
      kind: "lines",
      unit: "bytes",
      queries: { [`{{${instance}}}`]: `spegel_process_resident_bytes{${daemons}}` },
    },
  };
}

interface GridPosition {
  readonly x: number;
  readonly y: number;
  readonly w: number;
  readonly h: number;
}

/** Columns of a dashboard, in Grafana and in Plutono. */
const WIDTH = 24;

/** Panels in rows, in their order; a row ends when the next panel does not fit. */
export function layOut(
  panels: readonly Panel[],
  size: Readonly<Record<Panel["kind"], { readonly w: number; readonly h: number }>>,
): readonly { readonly panel: Panel; readonly id: number; readonly gridPos: GridPosition }[] {
  let [x, y, rowHeight] = [0, 0, 0];
  return panels.map((panel, index) => {
    const { w, h } = size[panel.kind];
    if (x + w > WIDTH) {
      x = 0;
      y += rowHeight;
      rowHeight = 0;
    }
    const gridPos = { x, y, w, h };
    x += w;
    rowHeight = Math.max(rowHeight, h);
    return { panel, id: index + 1, gridPos };
  });
}
