// SPDX-License-Identifier: Apache-2.0
import { isIP } from "node:net";
import { errorMessage } from "#errors";
import { DEFAULT_UPSTREAM } from "#nodelayout";
import { parseRegistryURL } from "#oci";
import { HostsError } from "./errors.ts";

/** A registry that gets a folder of its own. */
export interface MirroredRegistry {
  /** Host with port as containerd looks it up: `quay.io`, `registry.example.com:5000`. */
  readonly host: string;
  /** Where containerd goes when no mirror has the content; `https://docker.io` is served elsewhere. */
  readonly server: string;
}

// What may stand in a file between single quotes and be the name of a folder. Anything else is refused, not escaped.
const AUTHORITY = /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$/;

export function isWildcard(registry: string): boolean {
  return registry === "*" || registry === DEFAULT_UPSTREAM;
}

/** @throws HostsError HOSTS_SETTING_INVALID */
export function parseMirroredRegistry(text: string): MirroredRegistry {
  const { url, authority } = parseURL("mirrored registry", text);
  return { host: authority, server: url === "https://docker.io" ? "https://registry-1.docker.io" : url };
}

/**
 * Reads a mirror target. An IPv6 address without brackets gets them: a node's address is put in front of a port
 * by text replacement, as in `http://$(NODE_IP):30020`.
 *
 * @throws HostsError HOSTS_SETTING_INVALID
 */
export function parseMirrorTarget(text: string): string {
  const match = /^(https?:\/\/)([0-9A-Fa-f:]+):([0-9]{1,5})$/.exec(text);
  const isBare = match?.[2] !== undefined && isIP(match[2]) === 6;
  return parseURL("mirror target", isBare ? `${match[1]}[${match[2]}]:${match[3]}` : text).url;
}

/** The text as given, without a slash at its end. WHATWG's form would drop ports that containerd keeps. */
function parseURL(what: string, text: string): { readonly url: string; readonly authority: string } {
  const invalid = (reason: string, cause?: unknown): HostsError =>
    new HostsError({ code: "HOSTS_SETTING_INVALID", message: `${what} ${reason}`, cause });
  try {
    parseRegistryURL(text);
  } catch (error) {
    throw invalid(`is not usable: ${errorMessage(error)}`, error);
  }
  const url = text.replace(/\/$/, "");
  const authority = url.slice(url.indexOf("://") + 3);
  if (!AUTHORITY.test(authority)) {
    throw invalid(`"${text.slice(0, 300)}" has no plain host; expected http(s)://host[:port]`);
  }
  return { url, authority };
}

/**
 * The folders that containerd looks for, first one wins: the port may also be written as `host_port_`.
 * (hostPaths in containerd's remotes/docker/config.)
 */
export function directoriesOf(host: string): readonly string[] {
  const colon = host.lastIndexOf(":");
  return colon > 0 ? [`${host.slice(0, colon)}_${host.slice(colon + 1)}_`, host] : [host];
}

/** True for a folder name that containerd would look up for some image. */
export function isRegistryDirectory(name: string): boolean {
  const host = name.replace(/_([0-9]{1,5})_$/, ":$1");
  if (!AUTHORITY.test(host)) return false;
  return host.includes(".") || host.includes(":") || host === "localhost";
}
