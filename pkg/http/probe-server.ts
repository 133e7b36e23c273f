// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from "node:http";
import { openPlainServer, type PlainServer } from "./plain-server.ts";

export interface ProbeServerDeps {
  /** What is missing before requests may come, or undefined when nothing is; asked for each `/readyz`. */
  readonly notReady?: () => string | undefined;
  /** Served at `/metrics`. */
  readonly metrics?: { render(): Promise<string>; readonly contentType: string };
}

const MAX_CONNECTIONS = 64;

/**
 * `/healthz` (200 while the process answers at all), `/readyz` (200 or 503 with the reason) and `/metrics`, each if
 * it was given; everything else is 404.
 *
 * @throws the system error of listen
 */
export function createProbeServer(
  deps: ProbeServerDeps,
  options: { readonly address: string },
): Promise<PlainServer> {
  return openPlainServer(
    async (request, response) => {
      const path = (request.url ?? "").split("?", 1)[0];
      if (request.method !== "GET" && request.method !== "HEAD")
        return send(response, 405, "method not allowed\n");
      if (path === "/healthz" && deps.notReady) return send(response, 200, "ok\n");
      if (path === "/readyz" && deps.notReady) {
        const reason = deps.notReady();
        return reason === undefined ? send(response, 200, "ok\n") : send(response, 503, `${reason}\n`);
      }
      if (path === "/metrics" && deps.metrics) {
        return send(response, 200, await deps.metrics.render(), deps.metrics.contentType);
      }
      return send(response, 404, "not found\n");
    },
    { address: options.address, maxConnections: MAX_CONNECTIONS, drainTimeoutMs: 1000 },
  );
}

function send(
  response: ServerResponse,
  status: number,
  text: string,
  type = "text/plain; charset=utf-8",
): void {
  const body = Buffer.from(text);
  response.writeHead(status, { "content-type": type, "content-length": body.length }).end(body);
}
