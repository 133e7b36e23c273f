// SPDX-License-Identifier: Apache-2.0

/** One served resource. */
export interface ServedResource {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
  /** A status subresource: writes of the object leave `status` alone, writes of `/status` touch nothing else. */
  readonly status?: boolean;
  /** Keeps `metadata.generation`, bumped when something outside metadata and status changes. */
  readonly generation?: boolean;
}

const core = (plural: string, kind: string, more: Partial<ServedResource> = {}): ServedResource => ({
  group: "",
  version: "v1",
  plural,
  kind,
  namespaced: true,
  ...more,
});
const inGroup =
  (group: string, version: string, defaults: Partial<ServedResource> = {}) =>
  (plural: string, kind: string, more: Partial<ServedResource> = {}): ServedResource => ({
    group,
    version,
    plural,
    kind,
    namespaced: true,
    ...defaults,
    ...more,
  });
const rbac = inGroup("rbac.authorization.k8s.io", "v1");
const admission = inGroup("admissionregistration.k8s.io", "v1", { namespaced: false, generation: true });
const gardenerExtension = inGroup("extensions.gardener.cloud", "v1alpha1", {
  status: true,
  generation: true,
});
const istio = inGroup("networking.istio.io", "v1beta1", { generation: true });
const monitoring = inGroup("monitoring.coreos.com", "v1", { generation: true });

/** What is served without being told. */
export const DEFAULT_RESOURCES: readonly ServedResource[] = [
  core("secrets", "Secret"),
  core("configmaps", "ConfigMap"),
  core("namespaces", "Namespace", { namespaced: false, status: true }),
  core("nodes", "Node", { namespaced: false, status: true }),
  core("serviceaccounts", "ServiceAccount"),
  core("services", "Service", { status: true }),
  core("pods", "Pod", { status: true, generation: true }),
  core("events", "Event"),
  inGroup("coordination.k8s.io", "v1")("leases", "Lease"),
  admission("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
  admission("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
  rbac("roles", "Role"),
  rbac("rolebindings", "RoleBinding"),
  rbac("clusterroles", "ClusterRole", { namespaced: false }),
  rbac("clusterrolebindings", "ClusterRoleBinding", { namespaced: false }),
  inGroup("apps", "v1", { status: true, generation: true })("deployments", "Deployment"),
  inGroup("apps", "v1", { status: true, generation: true })("daemonsets", "DaemonSet"),
  inGroup("policy", "v1", { status: true, generation: true })("poddisruptionbudgets", "PodDisruptionBudget"),
  inGroup("autoscaling.k8s.io", "v1", { status: true, generation: true })(
    "verticalpodautoscalers",
    "VerticalPodAutoscaler",
  ),
  istio("gateways", "Gateway"),
  istio("virtualservices", "VirtualService"),
  istio("destinationrules", "DestinationRule"),
  gardenerExtension("extensions", "Extension"),
  gardenerExtension("operatingsystemconfigs", "OperatingSystemConfig"),
  gardenerExtension("clusters", "Cluster", { namespaced: false, status: false }),
  inGroup("resources.gardener.cloud", "v1alpha1", { status: true, generation: true })(
    "managedresources",
    "ManagedResource",
  ),
  monitoring("servicemonitors", "ServiceMonitor"),
  monitoring("prometheusrules", "PrometheusRule"),
  inGroup("monitoring.coreos.com", "v1alpha1", { generation: true })("scrapeconfigs", "ScrapeConfig"),
];

export const resourceId = (resource: Pick<ServedResource, "group" | "version" | "plural">): string =>
  `${resource.group}/${resource.version}/${resource.plural}`;

export const apiVersionOf = (resource: ServedResource): string =>
  resource.group === "" ? resource.version : `${resource.group}/${resource.version}`;

/** `secrets` or `extensions.extensions.gardener.cloud`, as the API server names it in messages. */
export const qualifiedName = (resource: ServedResource): string =>
  resource.group === "" ? resource.plural : `${resource.plural}.${resource.group}`;
