// SPDX-License-Identifier: Apache-2.0
import { type Digest, isDigest } from "./digest.ts";

export type ContentKind = "manifest" | "blob";

/** What a pull asks for: a manifest by tag, or a manifest or blob by digest. */
export type DistributionTarget =
  | { readonly kind: "manifest"; readonly tag: string; readonly digest?: undefined }
  | { readonly kind: ContentKind; readonly digest: Digest; readonly tag?: undefined };

/** A pull request of the OCI distribution specification. `registry` is containerd's `ns` query value. */
export type DistributionRequest = DistributionTarget & {
  readonly registry: string;
  readonly repository: string;
  /** What the swarm is asked for: the digest, or `registry/repository:tag`. */
  readonly key: string;
};

// Limits keep a hostile path from costing more than a comparison; the specification allows names up to 255.
const MAX_REPOSITORY_LENGTH = 255;
const MAX_REGISTRY_LENGTH = 255 + 6;

// One path component: alphanumerics joined by ".", "_", "__" or any number of "-".
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
// host, IPv4 or [IPv6], with an optional port. Becomes a key and a metric label, so it is not taken as it comes.
const REGISTRY = /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?$/;

/**
 * Parses `/v2/<repository>/(manifests|blobs)/<reference>` and the `ns` query value.
 *
 * @returns undefined when this is not a well-formed pull request; the answer is then 404 with an empty body.
 */
export function parseDistributionPath(
  path: string,
  registry: string | undefined,
): DistributionRequest | undefined {
  if (registry === undefined || registry.length > MAX_REGISTRY_LENGTH || !REGISTRY.test(registry))
    return undefined;
  if (!path.startsWith("/v2/")) return undefined;
  const lastSlash = path.lastIndexOf("/");
  const kindSlash = path.lastIndexOf("/", lastSlash - 1);
  if (kindSlash < 4) return undefined;
  const repository = path.slice(4, kindSlash);
  const section = path.slice(kindSlash + 1, lastSlash);
  const reference = path.slice(lastSlash + 1);
  if (!isRepository(repository)) return undefined;
  if (section === "manifests") {
    if (isDigest(reference)) return byDigest("manifest", registry, repository, reference);
    if (!TAG.test(reference)) return undefined;
    return {
      kind: "manifest",
      tag: reference,
      registry,
      repository,
      key: `${registry}/${repository}:${reference}`,
    };
  }
  if (section === "blobs" && isDigest(reference)) return byDigest("blob", registry, repository, reference);
  return undefined;
}

function byDigest(
  kind: ContentKind,
  registry: string,
  repository: string,
  digest: Digest,
): DistributionRequest {
  return { kind, digest, registry, repository, key: digest };
}

export function isRepository(text: string): boolean {
  if (text.length === 0 || text.length > MAX_REPOSITORY_LENGTH) return false;
  return text.split("/").every((component) => COMPONENT.test(component));
}

export function isTag(text: string): boolean {
  return TAG.test(text);
}
