// SPDX-License-Identifier: Apache-2.0
/** The Grafana dashboard of charts/spegel. */
import { daemonPanels, layOut, type Panel } from "../../pkg/extension/objects/panels.ts";

const SIZE = { number: { w: 4, h: 4 }, lines: { w: 12, h: 8 } } as const;

const daemons = daemonPanels({
  daemons: 'namespace=~"$namespace", pod=~"$pod"',
  registries: 'registry=~"$registry"',
  instance: "pod",
});

const PANELS: readonly Panel[] = [
  daemons.nodes,
  daemons.hitRate,
  daemons.hits,
  daemons.misses,
  daemons.lastHit,
  daemons.withoutContainerd,
  daemons.requests,
  daemons.sent,
  daemons.findTime,
  daemons.requestTime,
  daemons.trouble,
  daemons.underWay,
  daemons.contents,
  daemons.images,
  daemons.swarm,
  daemons.records,
  daemons.memory,
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
    panels: layOut(PANELS, SIZE).map(({ panel, id, gridPos }) => ({
      id,
      type: panel.kind === "number" ? "stat" : "timeseries",
      title: panel.title,
      description: panel.about,
      datasource: DATASOURCE,
      gridPos,
      fieldConfig: {
        defaults: { unit: panel.unit, min: panel.unit === "dateTimeFromNow" ? null : 0 },
        overrides: [],
      },
      options:
        panel.kind === "number"
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
        instant: panel.kind === "number",
        range: panel.kind !== "number",
      })),
    })),
  };
  return `${JSON.stringify(dashboard, null, 2)}\n`;
}
