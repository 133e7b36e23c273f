// SPDX-License-Identifier: Apache-2.0
import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";

/** Starts an HTTP server; disposing closes it together with all its connections. */
export async function listen(
  server: Server,
  options: { readonly address: string; readonly port: number },
): Promise<AsyncDisposable & { readonly port: number }> {
  server.listen(options.port, options.address);
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      if (!server.listening) return;
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
