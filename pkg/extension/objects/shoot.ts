// SPDX-License-Identifier: Apache-2.0
import { BOOTSTRAPPER_NAME } from "../names.ts";
import type { Manifest } from "./manifest.ts";

const ROLE_NAME = "extensions.gardener.cloud:registry-spegel:bootstrapper";

/** What the bootstrapper may do in the Shoot: read nodes. The token requestor makes its ServiceAccount. */
export function shootObjects(): Manifest[] {
  return [
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: { name: ROLE_NAME },
      rules: [{ apiGroups: [""], resources: ["nodes"], verbs: ["get", "list", "watch"] }],
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name: ROLE_NAME },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: ROLE_NAME },
      subjects: [{ kind: "ServiceAccount", name: BOOTSTRAPPER_NAME, namespace: "kube-system" }],
    },
  ];
}
