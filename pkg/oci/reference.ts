// SPDX-License-Identifier: Apache-2.0
import { isIP } from "node:net";
import { type Digest, isDigest } from "./digest.ts";
import { isRepository, isTag } from "./distribution.ts";
import { OCIError } from "./errors.ts";

/** A fully qualified image name: `registry/repository[:tag][@digest]`, at least one of tag and digest present. */
export interface ImageReference {
  readonly registry: string;
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

/**
 * Parses an image name as containerd stores it. The registry must be there: nothing is defaulted.
 *
 * @throws OCIError OCI_REFERENCE_INVALID, with the reason
 */
export function parseImageReference(text: string): ImageReference {
  const fail = (reason: string): never => {
    throw new OCIError({
      code: "OCI_REFERENCE_INVALID",
      message: `image name "${text.slice(0, 300)}" ${reason}`,
    });
  };
  if (text.includes("://")) return fail("must not contain a scheme");
  const slash = text.indexOf("/");
  if (slash <= 0) return fail("has no registry; expected registry/repository[:tag][@digest]");
  const registry = text.slice(0, slash);
  if (!isRegistryHost(registry))
    return fail(`does not start with a registry host ("${registry.slice(0, 80)}")`);

  let rest = text.slice(slash + 1);
  let digest: Digest | undefined;
  const at = rest.indexOf("@");
  if (at >= 0) {
    const candidate = rest.slice(at + 1);
    if (!isDigest(candidate)) return fail("has a malformed digest");
    digest = candidate;
    rest = rest.slice(0, at);
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(":");
  if (colon >= 0) {
    tag = rest.slice(colon + 1);
    if (!isTag(tag)) return fail("has a malformed tag");
    rest = rest.slice(0, colon);
  }
  if (!isRepository(rest)) return fail("has a malformed repository");
  if (tag === undefined && digest === undefined) return fail("has neither tag nor digest");
  return {
    registry,
    repository: rest,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  };
}

// A first component is a registry when it could be nothing else: localhost, an address, a dot or a port.
function isRegistryHost(text: string): boolean {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^[\]:/]+)(?::([0-9]{1,5}))?$/.exec(text);
  const host = match?.[1];
  if (host === undefined) return false;
  if (host.startsWith("[")) return isIP(host.slice(1, -1)) === 6;
  if (!/^[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?$/.test(host)) return false;
  return host === "localhost" || host.includes(".") || match?.[2] !== undefined;
}

/**
 * Parses an entry of `--mirrored-registries`: `http(s)://host[:port]`, nothing else.
 *
 * @returns the host with its port, as it appears in containerd's `ns` query
 * @throws OCIError OCI_REGISTRY_URL_INVALID
 */
export function parseRegistryURL(text: string): { readonly url: URL; readonly host: string } {
  const fail = (reason: string): never => {
    throw new OCIError({
      code: "OCI_REGISTRY_URL_INVALID",
      message: `registry URL "${text.slice(0, 300)}" ${reason}`,
    });
  };
  const url = URL.canParse(text) ? new URL(text) : fail("is not a URL; expected https://host[:port]");
  if (url.protocol !== "http:" && url.protocol !== "https:") return fail("must use http or https");
  if (url.username !== "" || url.password !== "") return fail("must not contain user information");
  if (url.search !== "" || url.hash !== "") return fail("must not contain a query or fragment");
  if (url.pathname !== "/" && url.pathname !== "") return fail("must not contain a path");
  return { url, host: url.host };
}
