// SPDX-License-Identifier: Apache-2.0
import { EXTENSION_NAME } from "#extension";
import { readManifests } from "#kit/api-server";

/** What the chart renders its ClusterRole and its Role from, rule by rule. */
const CHART_RIGHTS = new URL("../../charts/gardener-extension-registry-spegel/rbac/", import.meta.url);
const RBAC_GROUP = "rbac.authorization.k8s.io";
const RBAC = `${RBAC_GROUP}/v1`;

/**
 * Namespace of an installed extension, and its roles as the chart has them, bound to the ServiceAccount of the
 * extension's name.
 */
export async function extensionInstallation(namespace: string): Promise<object[]> {
  const [clusterRole] = await readManifests(new URL("cluster-role.yaml", CHART_RIGHTS));
  const [role] = await readManifests(new URL("role.yaml", CHART_RIGHTS));
  if (clusterRole?.kind !== "ClusterRole" || role?.kind !== "Role")
    throw new Error("the chart's rights are not where they were");
  const bound = ({ kind, metadata }: typeof role): object => ({
    roleRef: { apiGroup: RBAC_GROUP, kind, name: metadata.name },
    subjects: [{ kind: "ServiceAccount", name: EXTENSION_NAME, namespace }],
  });
  return [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
    clusterRole,
    // Several installations share the seed of a test: each has a binding of its own.
    { apiVersion: RBAC, kind: "ClusterRoleBinding", metadata: { name: namespace }, ...bound(clusterRole) },
    { ...role, metadata: { ...role.metadata, namespace } },
    {
      apiVersion: RBAC,
      kind: "RoleBinding",
      metadata: { name: role.metadata.name, namespace },
      ...bound(role),
    },
  ];
}
