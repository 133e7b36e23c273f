// SPDX-License-Identifier: Apache-2.0

/** The part of meta/v1 ObjectMeta that is used. */
export interface KubeMetadata {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly finalizers?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly OwnerReference[];
}

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
  readonly blockOwnerDeletion?: boolean;
}

export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: KubeMetadata;
}

/** Where objects of one type live in the API; `T` is their type. */
export interface Resource<T extends KubeObject = KubeObject> {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
  /** Never set: carries the type. */
  readonly object?: T;
}

export interface Secret extends KubeObject {
  readonly type?: string;
  readonly immutable?: boolean;
  /** Values are base64. */
  readonly data?: Readonly<Record<string, string>>;
}

export interface Lease extends KubeObject {
  readonly spec?: {
    readonly holderIdentity?: string;
    readonly leaseDurationSeconds?: number;
    readonly leaseTransitions?: number;
    /** MicroTime: RFC 3339 with exactly six fractional digits. */
    readonly acquireTime?: string;
    readonly renewTime?: string;
  };
}

export const SECRETS: Resource<Secret> = core("secrets", "Secret", true);
export const NAMESPACES: Resource = core("namespaces", "Namespace", false);
export const NODES: Resource = core("nodes", "Node", false);
export const LEASES: Resource<Lease> = {
  group: "coordination.k8s.io",
  version: "v1",
  plural: "leases",
  kind: "Lease",
  namespaced: true,
};

function core<T extends KubeObject>(plural: string, kind: string, namespaced: boolean): Resource<T> {
  return { group: "", version: "v1", plural, kind, namespaced };
}

/** Name of an object; `namespace` is required for namespaced resources. */
export interface ObjectName {
  readonly namespace?: string;
  readonly name: string;
}

export function apiVersionOf(resource: Resource): string {
  return resource.group === "" ? resource.version : `${resource.group}/${resource.version}`;
}

/** `namespace/name`, or `name` for cluster-scoped objects. */
export function keyOf(object: { readonly namespace?: string; readonly name: string }): string {
  return object.namespace === undefined ? object.name : `${object.namespace}/${object.name}`;
}

/** The inverse of `keyOf`. */
export function parseKey(key: string): ObjectName {
  const slash = key.indexOf("/");
  return slash < 0 ? { name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

/**
 * URL path of a collection, an object, or its subresource.
 * @throws TypeError when the namespace is missing or superfluous: a mistake of the caller that would otherwise
 *   address other objects.
 */
export function pathOf(
  resource: Resource,
  target: { readonly namespace?: string | undefined; readonly name?: string; readonly subresource?: string },
): string {
  const { namespace, name, subresource } = target;
  if (resource.namespaced ? name !== undefined && namespace === undefined : namespace !== undefined) {
    throw new TypeError(
      `${resource.plural} ${resource.namespaced ? "need" : "have"} no namespace`.replace("need no", "need a"),
    );
  }
  if (name === "" || namespace === "") throw new TypeError(`the name of one of ${resource.plural} is empty`);
  const root = resource.group === "" ? "/api" : `/apis/${resource.group}`;
  const scope = namespace === undefined ? "" : `/namespaces/${encodeURIComponent(namespace)}`;
  const leaf = name === undefined ? "" : `/${encodeURIComponent(name)}`;
  return `${root}/${resource.version}${scope}/${resource.plural}${leaf}${subresource === undefined ? "" : `/${subresource}`}`;
}
