// SPDX-License-Identifier: Apache-2.0
import { ApiStatus } from "./status.ts";

/** rbac.authorization.k8s.io/v1 PolicyRule, so the rules of a ClusterRole can be used as they are. */
export interface PolicyRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
  /** Not in RBAC: a rule that came from a Role holds in these namespaces alone. */
  readonly namespaces?: readonly string[];
}

export interface ApiUser {
  readonly name: string;
  readonly token: string;
  readonly rules: "admin" | readonly PolicyRule[];
}

export interface Access {
  readonly verb: string;
  readonly group: string;
  /** With subresource: `extensions/status`. */
  readonly resource: string;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
}

/** The user of a bearer token. @throws ApiStatus 401 for an unknown one; none at all is `system:anonymous`. */
export function authenticate(users: ReadonlyMap<string, ApiUser>, header: string | undefined): ApiUser {
  if (header === undefined) return { name: "system:anonymous", token: "", rules: [] };
  const user = users.get(header.replace(/^Bearer /, ""));
  if (!user) throw new ApiStatus(401, "Unauthorized", "Unauthorized");
  return user;
}

/** @throws ApiStatus 403 */
export function authorize(user: ApiUser, access: Access): void {
  if (user.rules === "admin" || user.rules.some((rule) => allows(rule, access))) return;
  const where =
    access.namespace === undefined ? "at the cluster scope" : `in the namespace "${access.namespace}"`;
  const what = access.name === undefined ? "" : ` "${access.name}"`;
  throw new ApiStatus(
    403,
    "Forbidden",
    `${access.resource}${what} is forbidden: User "${user.name}" cannot ${access.verb} resource "${access.resource}" in API group "${access.group}" ${where}`,
  );
}

function allows(rule: PolicyRule, access: Access): boolean {
  return (
    includes(rule.verbs, access.verb) &&
    includes(rule.apiGroups, access.group) &&
    includes(rule.resources, access.resource) &&
    (rule.resourceNames === undefined ||
      (access.name !== undefined && rule.resourceNames.includes(access.name))) &&
    (rule.namespaces === undefined ||
      (access.namespace !== undefined && rule.namespaces.includes(access.namespace)))
  );
}

const includes = (list: readonly string[], value: string): boolean =>
  list.includes("*") || list.includes(value);
