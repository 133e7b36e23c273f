// SPDX-License-Identifier: Apache-2.0
import { EXTENSION_NAME, EXTENSION_TYPE, SEED_RESOURCE_NAME, SHOOT_RESOURCE_NAME } from "#extension";

const named = (
  verbs: string[],
  apiGroups: string[],
  resources: string[],
  resourceNames: string[],
): object => ({
  apiGroups,
  resources,
  verbs,
  resourceNames,
});
const READ = ["get", "list", "watch"];

/** What the extension may do in the whole seed. */
const CLUSTER_RULES: readonly object[] = [
  { apiGroups: ["extensions.gardener.cloud"], resources: ["clusters", "extensions"], verbs: READ },
  named(
    ["patch", "update"],
    ["extensions.gardener.cloud"],
    ["extensions", "extensions/status"],
    [EXTENSION_TYPE],
  ),
  {
    apiGroups: ["admissionregistration.k8s.io"],
    resources: ["mutatingwebhookconfigurations"],
    verbs: ["create", ...READ],
  },
  named(
    ["patch", "update"],
    ["admissionregistration.k8s.io"],
    ["mutatingwebhookconfigurations"],
    [EXTENSION_NAME],
  ),
  { apiGroups: ["resources.gardener.cloud"], resources: ["managedresources"], verbs: ["create", ...READ] },
  named(
    ["update", "patch", "delete"],
    ["resources.gardener.cloud"],
    ["managedresources"],
    [SEED_RESOURCE_NAME, SHOOT_RESOURCE_NAME],
  ),
  { apiGroups: [""], resources: ["secrets"], verbs: ["create", ...READ, "update", "patch", "delete"] },
  { apiGroups: [""], resources: ["namespaces"], verbs: READ },
];

/** What it may do in its own namespace. */
const RULES: readonly object[] = [
  { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create", ...READ] },
  named(
    ["patch", "update"],
    ["coordination.k8s.io"],
    ["leases"],
    [`${EXTENSION_NAME}-leader-election`, "gardener-extension-heartbeat"],
  ),
];

/** Namespace, roles and bindings of an installed extension; its ServiceAccount has the extension's name. */
export function extensionInstallation(namespace: string): object[] {
  const rbac = "rbac.authorization.k8s.io/v1";
  const roleRef = (kind: string, name: string): object => ({
    apiGroup: "rbac.authorization.k8s.io",
    kind,
    name,
  });
  const subjects = [{ kind: "ServiceAccount", name: EXTENSION_NAME, namespace }];
  return [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
    { apiVersion: rbac, kind: "ClusterRole", metadata: { name: EXTENSION_NAME }, rules: CLUSTER_RULES },
    {
      apiVersion: rbac,
      kind: "ClusterRoleBinding",
      metadata: { name: namespace },
      roleRef: roleRef("ClusterRole", EXTENSION_NAME),
      subjects,
    },
    { apiVersion: rbac, kind: "Role", metadata: { name: EXTENSION_NAME, namespace }, rules: RULES },
    {
      apiVersion: rbac,
      kind: "RoleBinding",
      metadata: { name: EXTENSION_NAME, namespace },
      roleRef: roleRef("Role", EXTENSION_NAME),
      subjects,
    },
  ];
}
