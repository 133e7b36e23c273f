// SPDX-License-Identifier: Apache-2.0
/**
 * The values of charts/spegel: the only source of values.yaml, values.schema.json and the table in the README.
 *
 * Keys, meanings and defaults are those of Spegel's chart, so that one can take the place of the other; what differs
 * says so. Unknown keys are errors.
 */
import Type, { type TObject } from "typebox";
import { closed, flag, handed, labels, map, objects, oneOf, port, strings, text } from "./schema.ts";

const DURATION = { pattern: "^([0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h))+$" } as const;
const ABSOLUTE_PATH = { pattern: "^/" } as const;

export const SpegelValuesSchema: TObject = closed({
  image: closed({
    repository: text("", "Image repository. Required: no default is assumed."),
    pullPolicy: oneOf(["Always", "IfNotPresent", "Never"], "IfNotPresent", "Image pull policy."),
    tag: text("", "Image tag; the chart's appVersion when empty."),
    digest: text("", "Image digest (`sha256:...`); wins over the tag.", {
      pattern: "^(sha256:[0-9a-f]{64})?$",
    }),
  }),
  imagePullSecrets: objects("Pull secrets of all pods, those of the clean-up included."),
  nameOverride: text("", "Overrides the name of the chart."),
  fullnameOverride: text("", "Overrides the full name of all objects."),
  namespaceOverride: text("", "Overrides the namespace of all objects."),
  serviceAccount: closed({
    annotations: labels("Annotations of the service account."),
    name: text("", "Name of the service account, which is always made; the full name when empty."),
  }),
  daemonsetAnnotations: labels("Annotations of the DaemonSet."),
  podAnnotations: labels("Annotations of the pods."),
  podSecurityContext: map("Security context of the pods. Differs from Spegel, which sets none.", {
    seccompProfile: { type: "RuntimeDefault" },
  }),
  revisionHistoryLimit: Type.Integer({
    minimum: 0,
    default: 10,
    description: "Revisions kept for a rollback.",
  }),
  securityContext: map(
    "Security context of all containers. Differs from Spegel, which sets readOnlyRootFilesystem only. Root without any capability: containerd's socket and folders belong to root.",
    {
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      runAsUser: 0,
      runAsGroup: 0,
      capabilities: { drop: ["ALL"] },
    },
  ),
  service: closed({
    registry: closed({
      nodeIp: text("", "Address of the node for containerd; status.hostIP when empty."),
      port: port(5000, "Port of the registry in the pod and of its Service. All nodes use the same one."),
      nodePort: port(30020, "Port of the registry on each node: the mirror that containerd asks."),
      hostPort: Type.Integer({
        minimum: 0,
        maximum: 65535,
        default: 0,
        description:
          "Port of the registry on the node's own address, asked before the node port; 0 is none. Spegel had it up to v0.7.4 (30020 then, with node port 30021).",
      }),
      internalTrafficLocal: flag(
        false,
        "Use internalTrafficPolicy Local in place of trafficDistribution PreferSameNode, which needs Kubernetes 1.34.",
      ),
      topologyAwareHintsEnabled: flag(true, "Accepted without effect: the same node always comes first."),
      usePreferSameNodeTrafficDistribution: flag(
        false,
        "Ignore hostPort, as in Spegel v0.7.4. Traffic prefers the same node in any case.",
      ),
      annotations: labels("Annotations of the registry's Service."),
    }),
    router: closed({ port: port(5001, "Port of the peer-to-peer router in the pod.") }),
    metrics: closed({
      port: port(9090, "Port of the metrics in the pod and of their Service."),
      annotations: labels("Annotations of the metrics' Service."),
    }),
    bootstrap: closed({
      annotations: labels("Annotations of the headless Service that names all pods (bootstrap kind dns)."),
    }),
    cleanup: closed({
      port: port(8080, "Port on which a pod of the clean-up says that it has ended."),
      annotations: labels("Annotations of the clean-up's Service."),
    }),
  }),
  resources: map("Requests and limits, also of the configuration and the clean-up.", {
    requests: { memory: "128Mi" },
    limits: { memory: "128Mi" },
  }),
  nodeSelector: labels("Nodes that get a pod, and that are cleaned up.", { "kubernetes.io/os": "linux" }),
  updateStrategy: map("Update strategy of the DaemonSet."),
  tolerations: objects("Tolerations of all pods.", [
    { key: "CriticalAddonsOnly", operator: "Exists" },
    { effect: "NoExecute", operator: "Exists" },
    { effect: "NoSchedule", operator: "Exists" },
  ]),
  affinity: map("Affinity of the DaemonSets' pods."),
  commonLabels: labels("Labels of all objects."),
  clusterDomain: text("cluster.local.", "Domain of Services; the dot at its end saves look-ups."),
  networkPolicy: closed({ enabled: flag(false, "Let only the chart's own pods reach the router.") }),
  serviceMonitor: closed({
    enabled: flag(false, "Make a ServiceMonitor for the Prometheus operator."),
    interval: text("60s", "Scrape interval."),
    scrapeTimeout: text("30s", "Scrape timeout."),
    labels: labels("Labels by which Prometheus finds the ServiceMonitor."),
    relabelings: objects("Relabelings of targets."),
    metricRelabelings: objects("Relabelings of samples."),
  }),
  grafanaDashboard: closed({
    enabled: flag(false, "Make the Grafana dashboard."),
    mode: oneOf(
      ["Sidecar", "GrafanaOperator"],
      "Sidecar",
      "A ConfigMap for the sidecar, or a GrafanaDashboard.",
    ),
    labels: labels("Labels of the ConfigMap or GrafanaDashboard."),
    annotations: labels("Annotations of the ConfigMap or GrafanaDashboard."),
    grafanaOperator: closed({
      allowCrossNamespaceImport: flag(true, "Let Grafanas of other namespaces take the dashboard."),
      folder: text("", "Folder of the dashboard."),
      resyncPeriod: text("10m", "How often the operator looks for changes."),
      matchLabels: labels(
        "Labels of the Grafanas that take the dashboard. Required in mode GrafanaOperator.",
      ),
    }),
  }),
  priorityClassName: text("system-node-critical", "Priority class of all pods."),
  basicAuthSecretName: text(
    "",
    "Secret with the keys username and password that protects every node's registry. It then stands in the mirror configuration of each node.",
  ),
  livenessProbe: closed({ enabled: flag(false, "Restart a container whose /livez does not answer.") }),
  extraVolumes: objects("More volumes, for extraInitContainers."),
  extraInitContainers: objects("Init containers that run before the configuration."),
  spegel: closed({
    logLevel: oneOf(["DEBUG", "INFO", "WARN", "ERROR"], "INFO", "Least severe level that is logged."),
    bootstrapKind: oneOf(
      ["dns", "kubernetes"],
      "dns",
      "How a starting pod finds the swarm: the headless Service, or the pod that holds a Lease. For the latter every pod asks the API server every 2 to 4.4 s, which some hundred nodes make it feel. Not in Spegel, which had leader election alone before v0.1.",
    ),
    persistence: closed({
      enabled: flag(true, "Keep the node's identity in the swarm across restarts."),
      path: text("/var/lib/spegel", "Folder in the container.", ABSOLUTE_PATH),
      hostPath: text("/var/lib/spegel", "Folder on the node.", ABSOLUTE_PATH),
    }),
    mirroredRegistries: strings("Registries that are mirrored, as URLs; all when empty."),
    additionalMirrorTargets: strings("More mirrors, asked after this one."),
    mirrorResolveRetries: Type.Integer({
      minimum: 1,
      maximum: 20,
      default: 3,
      description: "How many peers a look-up asks for.",
    }),
    mirrorResolveTimeout: text(
      "20ms",
      "How long a request waits for a peer while no peer is being asked.",
      DURATION,
    ),
    containerdSock: text(
      "/run/containerd/containerd.sock",
      "containerd's socket on the node.",
      ABSOLUTE_PATH,
    ),
    containerdNamespace: text("k8s.io", "containerd's namespace whose content is served.", { minLength: 1 }),
    containerdRegistryConfigPath: text(
      "/etc/containerd/certs.d",
      "containerd's config_path on the node.",
      ABSOLUTE_PATH,
    ),
    containerdContentPath: text(
      "/var/lib/containerd/io.containerd.content.v1.content",
      "containerd's content folder on the node; content goes through its socket when empty.",
      { pattern: "^(/.*)?$" },
    ),
    containerdMirrorAdd: flag(true, "Configure containerd on each node, and put it back on uninstall."),
    resolveTags: flag(true, "Let the mirror answer which digest a tag has."),
    registryFilters: strings("RE2 expressions; names registry/repository:tag that match are not mirrored."),
    prependExisting: flag(false, "Keep the hosts that containerd had, after the mirror."),
    debugWebEnabled: flag(true, "Serve /debug/web/metadata on the metrics' port."),
  }),
  verticalPodAutoscaler: closed({
    enabled: flag(false, "Make a VerticalPodAutoscaler where the cluster knows the kind."),
    recommenders: objects("At most one recommender; the default one when empty."),
    controlledResources: strings("Resources it controls; its own default when empty."),
    controlledValues: oneOf(
      ["RequestsAndLimits", "RequestsOnly"],
      "RequestsAndLimits",
      "Whether limits follow the requests.",
    ),
    maxAllowed: map("Most that it recommends."),
    minAllowed: map("Least that it recommends."),
    updatePolicy: closed({
      minReplicas: Type.Integer({
        minimum: 1,
        default: 2,
        description: "Pods that must be there before it evicts one.",
      }),
      updateMode: oneOf(
        ["Off", "Initial", "Recreate", "InPlaceOrRecreate", "Auto"],
        "Auto",
        "When recommendations are applied.",
      ),
    }),
  }),
  global: handed("Values that Helm hands to every chart; not used."),
});
