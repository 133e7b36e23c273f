// SPDX-License-Identifier: Apache-2.0
import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { isAbsolute, join } from "node:path";
import { parse } from "smol-toml";
import { errorMessage, systemErrorCode } from "#errors";
import { PullError } from "./errors.ts";

export type Capability = "pull" | "resolve" | "push";

/** One host to ask, in the order in which it is asked. */
export interface RegistryHost {
  /** Scheme, host and port. */
  readonly origin: string;
  /** `/v2`, unless hosts.toml overrides it. */
  readonly path: string;
  readonly capabilities: readonly Capability[];
  /** PEM texts this host's certificate is checked against, beside the client's own. */
  readonly authorities: readonly string[];
  readonly headers: Readonly<Record<string, string>>;
  /** The host is not the registry itself: requests carry `?ns=<registry>`. */
  readonly mirror: boolean;
}

const ALL: readonly Capability[] = ["pull", "resolve", "push"];
const MAX_FILE_BYTES = 1024 * 1024;

/**
 * The hosts for a registry, from the first folder that exists: `<host>_<port>_`, `<host>:<port>`, `<host>`,
 * `_default`. A folder without hosts.toml hides the later ones all the same. The registry itself comes last.
 *
 * @throws PullError PULL_HOSTS_INVALID
 */
export async function loadHosts(
  directory: string,
  registry: string,
  options: { readonly signal: AbortSignal },
): Promise<readonly RegistryHost[]> {
  const folder = await firstFolder(directory, registry);
  const upstream = upstreamOf(registry);
  if (folder === undefined) return [upstream];
  const file = join(folder, "hosts.toml");
  const text = await readFile(file, { encoding: "utf8", signal: options.signal }).catch((error: unknown) => {
    options.signal.throwIfAborted();
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw error;
  });
  if (text === undefined) return [upstream];
  try {
    return await hostsOf(text, { folder, registry, upstream });
  } catch (error) {
    throw new PullError({
      code: "PULL_HOSTS_INVALID",
      message: `${file}: ${errorMessage(error)}`,
      cause: error,
    });
  }
}

async function firstFolder(directory: string, registry: string): Promise<string | undefined> {
  const port = /^(.+):([0-9]+)$/.exec(registry);
  const names =
    port === null ? [registry, "_default"] : [`${port[1]}_${port[2]}_`, registry, `${port[1]}`, "_default"];
  for (const name of names) {
    const found = await stat(join(directory, name)).catch(() => undefined);
    if (found?.isDirectory() === true) return join(directory, name);
  }
  return undefined;
}

// containerd speaks plain HTTP to loopback names, TLS to all others.
function upstreamOf(registry: string): RegistryHost {
  const name = registry === "docker.io" ? "registry-1.docker.io" : registry;
  const host = name.replace(/:[0-9]+$/, "").replace(/^\[(.*)\]$/, "$1");
  const loopback = host === "localhost" || (isIP(host) === 4 && host.startsWith("127.")) || host === "::1";
  return hostOf(`${loopback ? "http" : "https"}://${name}`, { registry, authorities: [] });
}

interface Context {
  readonly folder: string;
  readonly registry: string;
  readonly upstream: RegistryHost;
}

async function hostsOf(text: string, context: Context): Promise<readonly RegistryHost[]> {
  if (text.length > MAX_FILE_BYTES) throw new Error("the file is too large");
  const document = parse(text) as Record<string, unknown>;
  const tables = Object.entries(asTable(document["host"] ?? {}, "host"));
  const mirrors = await Promise.all(
    tables.map(([url, table]) => readHost(url, asTable(table, url), context)),
  );
  const { host: _, server, ...own } = document;
  if (server !== undefined && typeof server !== "string") throw new Error("server is not a string");
  const last = await readHost(server ?? context.upstream.origin, own, context);
  return [...mirrors, last];
}

async function readHost(
  url: string,
  table: Record<string, unknown>,
  context: Context,
): Promise<RegistryHost> {
  const authorities = await readAuthorities(table["ca"], context.folder);
  const { capabilities, override_path: overridePath, header } = table;
  return hostOf(url, {
    registry: context.registry,
    authorities,
    ...(capabilities === undefined ? {} : { capabilities: asCapabilities(capabilities) }),
    ...(overridePath === true ? { overridePath } : {}),
    ...(header === undefined ? {} : { headers: asHeaders(header) }),
  });
}

function hostOf(
  text: string,
  options: {
    readonly registry: string;
    readonly authorities: readonly string[];
    readonly capabilities?: readonly Capability[];
    readonly overridePath?: boolean;
    readonly headers?: Readonly<Record<string, string>>;
  },
): RegistryHost {
  const full = text.includes("://") ? text : `https://${text}`;
  if (!URL.canParse(full)) throw new Error(`"${text.slice(0, 200)}" is not a URL`);
  const url = new URL(full);
  if (url.protocol !== "http:" && url.protocol !== "https:")
    throw new Error(`"${text.slice(0, 200)}" is neither http nor https`);
  const given = url.pathname.replace(/\/+$/, "");
  const isRegistry =
    url.host === options.registry ||
    (options.registry === "docker.io" && url.host === "registry-1.docker.io");
  return {
    origin: url.origin,
    path: options.overridePath === true || given.endsWith("/v2") ? given : `${given}/v2`,
    capabilities: options.capabilities ?? ALL,
    authorities: options.authorities,
    headers: options.headers ?? {},
    mirror: !isRegistry,
  };
}

async function readAuthorities(value: unknown, folder: string): Promise<readonly string[]> {
  if (value === undefined) return [];
  const paths: unknown[] = Array.isArray(value) ? value : [value];
  return Promise.all(
    paths.map((path) => {
      if (typeof path !== "string") throw new Error("ca is neither a path nor a list of paths");
      return readFile(isAbsolute(path) ? path : join(folder, path), "utf8");
    }),
  );
}

function asTable(value: unknown, name: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new Error(`${name} is not a table`);
}

function asCapabilities(value: unknown): readonly Capability[] {
  const known = (each: unknown): each is Capability => ALL.some((capability) => capability === each);
  if (Array.isArray(value) && value.every(known)) return value;
  throw new Error("capabilities may hold pull, resolve and push only");
}

function asHeaders(value: unknown): Readonly<Record<string, string>> {
  const entries = Object.entries(asTable(value, "header"));
  return Object.fromEntries(
    entries.map(([name, each]) => {
      const first: unknown = Array.isArray(each) ? each[0] : each;
      if (typeof first !== "string") throw new Error(`header ${name} is not a string`);
      return [name, first];
    }),
  );
}
