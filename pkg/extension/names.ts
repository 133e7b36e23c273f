// SPDX-License-Identifier: Apache-2.0
/** Names that operators see, and Gardener's words for them. */
import type { Cluster, Extension, ManagedResource } from "#api/gardener";
import type { Resource } from "#kube";

export const EXTENSION_TYPE = "registry-spegel";
export const EXTENSION_NAME = "gardener-extension-registry-spegel";
export const FINALIZER = "extensions.gardener.cloud/registry-spegel";
export const OPERATION_ANNOTATION = "gardener.cloud/operation";
export const TIMESTAMP_ANNOTATION = "gardener.cloud/timestamp";
/** Its value is the identity of our secrets in a Shoot's namespace. */
export const CREDENTIALS_IDENTITY = "extension-registry-spegel";
export const AUTHORITY_NAME = "ca-extension-registry-spegel";
export const SERVER_CERTIFICATE_NAME = "registry-spegel-bootstrapper-server";
export const CLIENT_CERTIFICATE_NAME = "registry-spegel-client";
export const CLIENT_COMMON_NAME = "extensions.gardener.cloud:registry-spegel:node";

/** Name of the Deployment, its ServiceAccount, Service and routes, and of the ServiceAccount in the Shoot. */
export const BOOTSTRAPPER_NAME = "registry-spegel-bootstrapper";
export const SHOOT_ACCESS_SECRET_NAME = `shoot-access-${BOOTSTRAPPER_NAME}`;
export const SEED_RESOURCE_NAME = "extension-registry-spegel";
export const SHOOT_RESOURCE_NAME = "extension-registry-spegel-shoot";
/** Label `origin` of what we put into Shoots; `gardener` is reserved for Gardener itself. */
export const ORIGIN = "registry-spegel";

export const EXTENSIONS: Resource<Extension> = {
  group: "extensions.gardener.cloud",
  version: "v1alpha1",
  plural: "extensions",
  kind: "Extension",
  namespaced: true,
};
export const CLUSTERS: Resource<Cluster> = {
  group: "extensions.gardener.cloud",
  version: "v1alpha1",
  plural: "clusters",
  kind: "Cluster",
  namespaced: false,
};
export const MANAGED_RESOURCES: Resource<ManagedResource> = {
  group: "resources.gardener.cloud",
  version: "v1alpha1",
  plural: "managedresources",
  kind: "ManagedResource",
  namespaced: true,
};
