// SPDX-License-Identifier: Apache-2.0
import { BOOTSTRAPPER_NAME } from "../names.ts";
import { NODE_JOB, SHOOT_RULES } from "./alerts.ts";
import { shootDashboardJSON } from "./dashboard.ts";
import type { Manifest } from "./manifest.ts";

const NAME = "shoot-registry-spegel";
/** gardenlet's access of the Shoot's Prometheus to the Shoot. */
const ACCESS_SECRET = "shoot-access-prometheus-shoot";

/**
 * Families that are kept of what node-exporter hands out, without the suffixes of histograms: what alerts and the
 * dashboard use, and the time at which the file was written.
 */
export const NODE_METRICS: readonly string[] = [
  "node_textfile_mtime_seconds",
  "spegel_advertised_content_digests",
  "spegel_corrupt_contents",
  "spegel_images_without_layers",
  "spegel_mirror_peer_failures_total",
  "spegel_mirror_requests_total",
  "spegel_mirror_sources_lost_total",
  "spegel_process_resident_bytes",
  "spegel_resolve_duration_seconds_bucket",
  "spegel_sent_bytes_total",
  "spegel_store_connected",
  "spegel_swarm_peers",
];

export const BOOTSTRAPPER_METRICS: readonly string[] = [
  "spegel_bootstrapper_handshake_failures_total",
  "spegel_bootstrapper_nodes",
  "spegel_bootstrapper_requests_total",
];

/** Configuration of the Shoot's Prometheus and Plutono. Shoots of purpose `testing` have neither. */
export function monitoringObjects(namespace: string): Manifest[] {
  const metadata = {
    name: NAME,
    namespace,
    labels: { prometheus: "shoot", component: "registry-spegel" },
  };
  return [
    {
      apiVersion: "monitoring.coreos.com/v1alpha1",
      kind: "ScrapeConfig",
      metadata,
      spec: scrapeConfig(),
    },
    {
      apiVersion: "monitoring.coreos.com/v1",
      kind: "ServiceMonitor",
      metadata,
      spec: {
        selector: { matchLabels: { "app.kubernetes.io/name": BOOTSTRAPPER_NAME } },
        endpoints: [{ port: "http-metrics", metricRelabelings: keep(BOOTSTRAPPER_METRICS) }],
      },
    },
    {
      apiVersion: "monitoring.coreos.com/v1",
      kind: "PrometheusRule",
      metadata,
      spec: { groups: [{ name: "registry-spegel.rules", rules: SHOOT_RULES }] },
    },
    {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: {
        name: "registry-spegel-dashboards",
        namespace,
        labels: { "dashboard.monitoring.gardener.cloud/shoot": "true", component: "registry-spegel" },
      },
      data: { "registry-spegel.json": shootDashboardJSON() },
    },
  ];
}

/**
 * node-exporter once more, through the Shoot's API server, as gardenlet's own job `node-exporter` does it: that one
 * keeps none of our families, and gardenlet overwrites changes to it.
 */
function scrapeConfig(): object {
  const authorization = { credentials: { name: ACCESS_SECRET, key: "token" } };
  const tlsConfig = { insecureSkipVerify: true };
  return {
    honorLabels: false,
    scheme: "HTTPS",
    tlsConfig,
    authorization,
    kubernetesSDConfigs: [
      {
        role: "Endpoints",
        apiServer: "https://kube-apiserver",
        namespaces: { names: ["kube-system"] },
        authorization,
        tlsConfig,
      },
    ],
    relabelings: [
      { action: "replace", targetLabel: "job", replacement: NODE_JOB },
      { action: "replace", targetLabel: "type", replacement: "shoot" },
      {
        action: "keep",
        sourceLabels: ["__meta_kubernetes_service_name", "__meta_kubernetes_endpoint_port_name"],
        regex: "node-exporter;metrics",
      },
      { action: "labelmap", regex: "__meta_kubernetes_service_label_(.+)" },
      { action: "replace", sourceLabels: ["__meta_kubernetes_pod_name"], targetLabel: "pod" },
      { action: "replace", sourceLabels: ["__meta_kubernetes_pod_node_name"], targetLabel: "node" },
      { action: "replace", targetLabel: "__address__", replacement: "kube-apiserver:443" },
      {
        action: "replace",
        sourceLabels: ["__meta_kubernetes_pod_name", "__meta_kubernetes_pod_container_port_number"],
        regex: "(.+);(.+)",
        targetLabel: "__metrics_path__",
        // biome-ignore lint/suspicious/noTemplateCurlyInString: Prometheus fills it in
        replacement: "/api/v1/namespaces/kube-system/pods/${1}:${2}/proxy/metrics",
      },
    ],
    metricRelabelings: keep(NODE_METRICS),
  };
}

function keep(metrics: readonly string[]): object[] {
  return [{ action: "keep", sourceLabels: ["__name__"], regex: `^(${metrics.join("|")})$` }];
}
