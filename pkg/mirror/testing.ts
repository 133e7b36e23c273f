// SPDX-License-Identifier: Apache-2.0
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { silentLogger } from "#log";
import { createMetrics } from "#metrics";
import { type Digest, sha256Digest } from "#oci";
import { createMemoryRouting, type MemoryRouting } from "#routing";
import { createMemoryStore } from "#store";
import type { BasicAuth } from "./basic-auth.ts";
import { createFilters } from "./filters.ts";
import { createMirrorMetrics } from "./metrics.ts";
import { createPeerHealth } from "./peer-health.ts";
import { openRegistryServer } from "./registry-server.ts";

/** One whole answer, headers in lower case, body as bytes. `cut` when it ended before its Content-Length. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
  readonly cut: boolean;
}

/** Sends one request on a connection of its own and reads the answer to its end. */
export function ask(
  url: string,
  options: { readonly method?: string; readonly headers?: Readonly<Record<string, string>> } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      url,
      { method: options.method ?? "GET", headers: options.headers, agent: false },
      (response) => {
        const chunks: Buffer[] = [];
        const done = (cut: boolean): void =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks),
            cut,
          });
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () => done(false));
        response.on("error", () => done(true));
      },
    );
    request.on("error", reject);
    request.end();
  });
}

/** The mirror of one node, over a memory store and a memory swarm. */
export async function openNode(
  settings: {
    readonly routing?: MemoryRouting;
    readonly id?: string;
    readonly host?: string;
    readonly port?: number;
    readonly filters?: Parameters<typeof createFilters>[0];
    readonly auth?: BasicAuth;
    readonly resolveTimeoutMs?: number;
    readonly stallTimeoutMs?: number;
    readonly answerTimeoutMs?: number;
    readonly leastBytesPerSecond?: number;
    /** Where peers listen; the node's own port when absent. */
    readonly peerPort?: number;
  } = {},
) {
  const routing = settings.routing ?? createMemoryRouting();
  const host = settings.host ?? "127.0.0.1";
  const id = settings.id ?? "node";
  const store = createMemoryStore();
  const router = routing.join({ id, addresses: [host] });
  const metrics = createMetrics();
  const server = await openRegistryServer(
    {
      store,
      router,
      filters: createFilters(settings.filters ?? { mirroredRegistries: [], registryFilters: [] }),
      health: createPeerHealth({ avoidMs: 10_000, limit: 100, now: () => performance.now() }),
      metrics: createMirrorMetrics(metrics),
      log: silentLogger,
      ready: () => router.ready(),
      ...(settings.auth === undefined ? {} : { auth: settings.auth }),
    },
    {
      address: `${host}:${settings.port ?? 0}`,
      ...(settings.peerPort === undefined ? {} : { registryPort: settings.peerPort }),
      lookupCount: 3,
      resolveTimeoutMs: settings.resolveTimeoutMs ?? 1000,
      hedgeAfterMs: 50,
      answerTimeoutMs: settings.answerTimeoutMs ?? 500,
      maxParallel: 3,
      stallTimeoutMs: settings.stallTimeoutMs ?? 300,
      ...(settings.leastBytesPerSecond === undefined
        ? {}
        : { leastBytesPerSecond: settings.leastBytesPerSecond }),
    },
  );
  return {
    store,
    router,
    routing,
    metrics,
    url: `http://${server.address}`,
    port: server.port,
    async hold(bytes: Uint8Array): Promise<Digest> {
      const digest = sha256Digest(bytes);
      await store.put(digest, bytes, { signal: AbortSignal.timeout(5000) });
      return digest;
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** A peer that behaves as `handle` says, on an address of its own; all peers of a test share one port. */
export async function openPeer(
  host: string,
  port: number,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<AsyncDisposable & { readonly port: number; readonly requests: IncomingMessage[] }> {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    handle(request, response);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
