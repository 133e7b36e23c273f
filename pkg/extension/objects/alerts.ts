// SPDX-License-Identifier: Apache-2.0
/** What the Prometheus of a Shoot records and alerts about the mirror. */

/** A rule of `monitoring.coreos.com/v1` PrometheusRule. */
export type PrometheusRule =
  | { readonly record: string; readonly expr: string }
  | {
      readonly alert: string;
      readonly expr: string;
      readonly for: string;
      readonly labels: Readonly<Record<"service" | "severity" | "type" | "visibility", string>>;
      readonly annotations: { readonly summary: string; readonly description: string };
    };

/** Job of the scrape through node-exporter: one target for each node. */
export const NODE_JOB = "registry-spegel";
/** Job of the scrape of the bootstrapper; a ServiceMonitor takes the name of the Service. */
export const BOOTSTRAPPER_JOB = "registry-spegel-bootstrapper";

const NODES = `job="${NODE_JOB}"`;
const BOOTSTRAPPER = `job="${BOOTSTRAPPER_JOB}"`;
const LOOK = "On the node look at `systemctl status spegel` and `journalctl -u spegel`.";
const HARMLESS = "Pulls still work: containerd goes to the registry.";

function alert(init: {
  readonly name: string;
  readonly expr: string;
  readonly for: string;
  readonly severity: "critical" | "warning" | "info";
  /** `seed` for the control plane, `shoot` for nodes. */
  readonly type: "seed" | "shoot";
  readonly summary: string;
  readonly description: string;
}): PrometheusRule {
  const { name, expr, severity, type, summary, description } = init;
  return {
    alert: name,
    expr,
    for: init.for,
    labels: { service: "registry-spegel", severity, type, visibility: "operator" },
    annotations: { summary, description },
  };
}

/**
 * A daemon that crashes again and again looks healthy to Gardener's node conditions, and pulls fall back without a
 * word: only these tell. `shoot:*:*` is handed on to the Prometheuses of the seed and the garden.
 */
export const SHOOT_RULES: readonly PrometheusRule[] = [
  {
    record: "shoot:spegel_mirror_requests_total:sum_by_cache",
    expr: `sum by (cache) (rate(spegel_mirror_requests_total{${NODES}}[5m]))`,
  },
  {
    record: "shoot:spegel_sent_bytes_total:sum_by_source",
    expr: `sum by (source) (rate(spegel_sent_bytes_total{${NODES}}[5m]))`,
  },
  alert({
    name: "RegistrySpegelBootstrapperDown",
    expr: `absent(up{${BOOTSTRAPPER}} == 1)`,
    for: "15m",
    severity: "warning",
    type: "seed",
    summary: "The bootstrapper of the image mirror is down.",
    description:
      "Nodes that start now do not find the others and pull from registries; nodes that have joined go on. Look at the Deployment registry-spegel-bootstrapper in the Shoot's namespace of the seed and at the log of its pod.",
  }),
  alert({
    name: "RegistrySpegelNodesRefused",
    expr: `increase(spegel_bootstrapper_handshake_failures_total{${BOOTSTRAPPER}}[2h]) > 10 unless on (pod) increase(spegel_bootstrapper_requests_total{${BOOTSTRAPPER}, code="200"}[2h]) > 0`,
    for: "30m",
    severity: "warning",
    type: "seed",
    summary: "Nodes cannot log in to the bootstrapper of the image mirror.",
    description:
      "Every TLS handshake fails: nodes and bootstrapper do not trust each other's certificates. Reconcile the Shoot, so that nodes get the current ones, and compare status.providerStatus of the Extension registry-spegel with the Secrets in the Shoot's namespace.",
  }),
  alert({
    name: "RegistrySpegelNodeDown",
    expr: `up{${NODES}} == 1 unless on (pod) spegel_store_connected{${NODES}}`,
    for: "15m",
    severity: "warning",
    type: "shoot",
    summary: "The image mirror does not run on a node.",
    description: `The node {{ $labels.node }} gives no metrics of the mirror. ${HARMLESS} ${LOOK}`,
  }),
  alert({
    name: "RegistrySpegelNodeUnsteady",
    expr: `count_over_time(spegel_store_connected{${NODES}}[1h]) / on (pod, node) count_over_time(up{${NODES}}[1h]) < 0.7`,
    for: "1h",
    severity: "warning",
    type: "shoot",
    summary: "The image mirror comes and goes on a node.",
    description: `The metrics of the mirror are missing again and again on the node {{ $labels.node }}, as when it crashes or systemd kills it for its memory. ${HARMLESS} ${LOOK}`,
  }),
  alert({
    name: "RegistrySpegelMetricsStale",
    expr: `time() - node_textfile_mtime_seconds{${NODES}, file=~".*/spegel[.]prom"} > 300`,
    for: "15m",
    severity: "info",
    type: "shoot",
    summary: "The metrics of the image mirror are old.",
    description:
      "The metrics of the mirror on the node {{ $labels.node }} are not renewed. On the node look at `systemctl status spegel-metrics` and at the space on its disk.",
  }),
  alert({
    name: "RegistrySpegelWithoutContainerd",
    expr: `spegel_store_connected{${NODES}} == 0`,
    for: "15m",
    severity: "warning",
    type: "shoot",
    summary: "The image mirror of a node does not reach containerd.",
    description: `The mirror on the node {{ $labels.node }} cannot read what containerd has, and shares nothing. Look at \`systemctl status containerd\`. ${LOOK}`,
  }),
  alert({
    name: "RegistrySpegelNodeAlone",
    expr: `spegel_swarm_peers{${NODES}} == 0 and on () count(spegel_swarm_peers{${NODES}}) > 1`,
    for: "1h",
    severity: "warning",
    type: "shoot",
    summary: "A node does not find the image mirrors of the others.",
    description: `The mirror on the node {{ $labels.node }} knows no other node. Its way to the bootstrapper (HTTPS to the seed's ingress domain) and the router port between nodes must be open. ${LOOK}`,
  }),
  alert({
    name: "RegistrySpegelCorruptContent",
    expr: `spegel_corrupt_contents{${NODES}} > 0`,
    for: "5m",
    severity: "warning",
    type: "shoot",
    summary: "A node has damaged image content.",
    description:
      "The node {{ $labels.node }} has content whose digest is wrong; the mirror does not hand it out, but containerd may use it. The journal of spegel names the digest. Check the disk, and replace the node.",
  }),
  alert({
    name: "RegistrySpegelLayersDiscarded",
    expr: `spegel_images_without_layers{${NODES}} > 0`,
    for: "1h",
    severity: "info",
    type: "shoot",
    summary: "A node discards the layers of its images.",
    description:
      "containerd on the node {{ $labels.node }} deletes layers after unpacking them, so {{ $value }} images cannot be shared. Something sets discard_unpacked_layers = true over the node configuration, such as a file in /etc/containerd/conf.d: look at `containerd config dump`.",
  }),
  alert({
    name: "RegistrySpegelWithoutHits",
    expr: `sum(increase(spegel_mirror_requests_total{${NODES}, cache="miss"}[6h])) > 100 unless (sum(increase(spegel_mirror_requests_total{${NODES}, cache="hit"}[6h])) > 0 or count(spegel_swarm_peers{${NODES}}) < 2)`,
    for: "1h",
    severity: "info",
    type: "shoot",
    summary: "The image mirror has not helped for hours.",
    description:
      "Nodes asked each other for images and never got one. When images are used by one node each, this is normal; otherwise the registry port between nodes must be open, and containerd must keep its layers (discard_unpacked_layers).",
  }),
];
