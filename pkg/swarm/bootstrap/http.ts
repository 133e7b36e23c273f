// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
} from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { join } from "node:path";
import type { SecureContextOptions } from "node:tls";
import { systemErrorCode } from "#errors";
import type { Logger } from "#log";
import { CA_CERTIFICATE_FILE, CLIENT_CERTIFICATE_FILE, CLIENT_KEY_FILE } from "#nodelayout";
import { SwarmError } from "../errors.ts";
import {
  type BootstrapPeer,
  type BootstrapSource,
  MAX_BOOTSTRAP_PEERS,
  parseBootstrapPeer,
} from "./source.ts";

/** Room for some thousand nodes. */
const MAX_BODY_BYTES = 1024 * 1024;
/** Entries that are looked at. */
const MAX_ENTRIES = 1000;
const MAX_CERTIFICATE_BYTES = 1024 * 1024;

export interface HttpBootstrapOptions {
  /** The whole URL of the list, http or https. */
  readonly url: string;
  /** Folder with `ca.crt`, `tls.crt` and `tls.key`. Each is optional, but certificate and key come together. */
  readonly certificateDirectory: string | undefined;
  readonly defaultPort: number;
  /** Environment with HTTPS_PROXY, HTTP_PROXY and NO_PROXY; without it there is no proxy. */
  readonly proxyEnvironment?: Readonly<Record<string, string | undefined>>;
}

/**
 * Asks a server for the nodes: a JSON array of `{"ID": "", "Addrs": ["/ip4/..."]}`, or one such object, as Spegel up to
 * v0.7 serves it. Entries that cannot be understood are passed over. The certificates are read for every request, so
 * that renewed ones are used at once.
 * @throws SwarmError SWARM_ADDRESS_INVALID when the URL is none.
 */
export function createHttpBootstrap(
  deps: { readonly logger: Logger },
  options: HttpBootstrapOptions,
): BootstrapSource {
  const url = parseUrl(options.url);
  return {
    name: "http",
    async peers({ signal }) {
      try {
        const credentials =
          url.protocol === "https:" ? await readCredentials(options.certificateDirectory, signal) : {};
        return readPeers(
          deps.logger,
          await get(url, { credentials, proxyEnv: options.proxyEnvironment ?? {} }, signal),
          options.defaultPort,
        );
      } catch (cause) {
        throw new SwarmError({
          code: "SWARM_BOOTSTRAP_FAILED",
          message: `cannot get nodes from ${url.host}`,
          cause,
        });
      }
    },
  };
}

/** The URL that `--http-bootstrap-peer` of Spegel up to v0.7 means. */
export function bootstrapPeerUrl(base: string): string {
  return `${base.replace(/\/+$/, "")}/id`;
}

function parseUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new SwarmError({
      code: "SWARM_ADDRESS_INVALID",
      message: `${JSON.stringify(text)} is no http or https URL`,
    });
  }
  return url;
}

/** A certificate authority found here is the only one that is trusted. */
async function readCredentials(
  directory: string | undefined,
  signal: AbortSignal,
): Promise<SecureContextOptions> {
  if (directory === undefined || directory === "") return {};
  const [ca, cert, key] = await Promise.all(
    [CA_CERTIFICATE_FILE, CLIENT_CERTIFICATE_FILE, CLIENT_KEY_FILE].map((name) =>
      readOptional(join(directory, name), signal),
    ),
  );
  if ((cert === undefined) !== (key === undefined)) {
    throw invalid(`${directory} has only one of ${CLIENT_CERTIFICATE_FILE} and ${CLIENT_KEY_FILE}`);
  }
  if (ca !== undefined && !ca.includes("-----BEGIN CERTIFICATE-----"))
    throw invalid(`${CA_CERTIFICATE_FILE} holds no certificate`);
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
  };
}

/** An empty file counts as missing. */
async function readOptional(path: string, signal: AbortSignal): Promise<Buffer | undefined> {
  try {
    const content = await readFile(path, { signal });
    if (content.length > MAX_CERTIFICATE_BYTES) throw invalid(`${path} is too long`);
    return content.length === 0 ? undefined : content;
  } catch (err) {
    if (systemErrorCode(err) === "ENOENT") return undefined;
    throw err;
  }
}

interface Way {
  readonly credentials: SecureContextOptions;
  readonly proxyEnv: Readonly<Record<string, string | undefined>>;
}

/** A proxy only passes the TLS connection on: it sees the name of the server, and no certificate of ours. */
async function get(url: URL, { credentials, proxyEnv }: Way, signal: AbortSignal): Promise<string> {
  const headers = { accept: "application/json" };
  const request: ClientRequest =
    url.protocol === "https:"
      ? httpsRequest(url, {
          ...credentials,
          minVersion: "TLSv1.2",
          agent: new HttpsAgent({ proxyEnv }),
          headers,
          signal,
        })
      : httpRequest(url, { agent: new HttpAgent({ proxyEnv }), headers, signal });
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request.once("response", resolve);
    request.on("error", reject); // stays: a connection may break after the response began
    request.end();
  });
  try {
    if (response.statusCode !== 200) throw invalid(`status is ${response.statusCode}`);
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      sizeBytes += chunk.length;
      if (sizeBytes > MAX_BODY_BYTES) throw invalid(`answer is longer than ${MAX_BODY_BYTES} bytes`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  } finally {
    request.destroy();
  }
}

function readPeers(logger: Logger, body: string, defaultPort: number): BootstrapPeer[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch (cause) {
    throw invalid("answer is not JSON", cause);
  }
  if (typeof parsed !== "object" || parsed === null)
    throw invalid("answer is neither an array nor an object");
  const entries = (Array.isArray(parsed) ? (parsed as unknown[]) : [parsed]).slice(0, MAX_ENTRIES);
  const peers: BootstrapPeer[] = [];
  const errors: unknown[] = [];
  for (const entry of entries) {
    if (peers.length >= MAX_BOOTSTRAP_PEERS) break;
    try {
      peers.push(readEntry(entry, defaultPort));
    } catch (err) {
      errors.push(err);
    }
  }
  if (errors.length > 0)
    logger.warn("bootstrap entries are passed over", { count: errors.length, err: errors[0] });
  return peers;
}

function readEntry(entry: unknown, defaultPort: number): BootstrapPeer {
  if (typeof entry !== "object" || entry === null) throw invalid("entry is not an object");
  const { ID: id, Addrs: addresses } = entry as { readonly ID?: unknown; readonly Addrs?: unknown };
  if (id !== undefined && id !== null && typeof id !== "string") throw invalid("ID is not a string");
  if (!Array.isArray(addresses) || !addresses.every((address) => typeof address === "string"))
    throw invalid("Addrs is not an array of strings");
  return parseBootstrapPeer(addresses, { ...(typeof id === "string" ? { id } : {}), defaultPort });
}

function invalid(message: string, cause?: unknown): SwarmError {
  return new SwarmError({ code: "SWARM_BOOTSTRAP_FAILED", message, cause });
}
