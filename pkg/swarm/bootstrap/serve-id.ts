// SPDX-License-Identifier: Apache-2.0

import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { SwarmError } from "../errors.ts";

export interface BootstrapIdServer extends AsyncDisposable {
  readonly port: number;
}

/**
 * Serves this node as a bootstrap peer at `/id`, the counterpart of the `http` source (`--http-bootstrap-addr`): a JSON
 * array with one entry. An empty host listens on every address.
 * @throws SwarmError SWARM_LISTEN_FAILED when the address cannot be listened on.
 */
export async function serveBootstrapId(
  deps: { readonly peerId: string; readonly addresses: () => readonly string[] },
  options: { readonly host: string; readonly port: number },
): Promise<BootstrapIdServer> {
  const server = createServer(
    { requestTimeout: 5_000, headersTimeout: 5_000, keepAliveTimeout: 5_000 },
    (request, response) => {
      request.resume();
      if (request.url?.split("?", 1)[0] !== "/id") {
        response.writeHead(404).end();
        return;
      }
      const body = JSON.stringify([{ ID: deps.peerId, Addrs: deps.addresses() }]);
      response
        .writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) })
        .end(body);
    },
  );
  server.maxConnections = 64;
  try {
    server.listen(options.port, options.host === "" ? undefined : options.host);
    await once(server, "listening");
  } catch (cause) {
    throw new SwarmError({
      code: "SWARM_LISTEN_FAILED",
      message: `cannot listen on ${options.host}:${options.port}`,
      cause,
    });
  }
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
