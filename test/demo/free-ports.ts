// SPDX-License-Identifier: Apache-2.0
import { once } from "node:events";
import { createServer } from "node:net";
import { SPEGEL_PORT_FIELDS, type SpegelPorts } from "#api/spegel";

/** Ports that are free on every address: the preferred ones unless something else on this machine has taken them. */
export async function findPorts(
  addresses: readonly string[],
  options: { readonly preferred?: SpegelPorts } = {},
): Promise<SpegelPorts> {
  const chosen: number[] = [];
  for (const field of SPEGEL_PORT_FIELDS) {
    const wanted = options.preferred?.[field] ?? 0;
    chosen.push(((await isFree(wanted, addresses)) ? wanted : undefined) ?? (await anyFree(addresses)));
  }
  const [registryPort = 0, routerPort = 0, metricsPort = 0] = chosen;
  return { registryPort, routerPort, metricsPort };
}

/** A port that is free on every address. */
export async function anyFree(addresses: readonly string[]): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = await listenOnce(0, addresses[0] ?? "127.0.0.1");
    if (port !== undefined && (await isFree(port, addresses))) return port;
  }
  throw new Error(`no port is free on all of ${addresses.join(", ")}`);
}

async function isFree(port: number, addresses: readonly string[]): Promise<boolean> {
  if (port === 0) return false;
  for (const address of addresses) {
    if ((await listenOnce(port, address)) === undefined) return false;
  }
  return true;
}

async function listenOnce(port: number, address: string): Promise<number | undefined> {
  const server = createServer();
  server.listen(port, address);
  try {
    await once(server, "listening");
  } catch {
    return undefined;
  }
  const bound = server.address();
  server.close();
  await once(server, "close");
  return typeof bound === "object" && bound !== null ? bound.port : undefined;
}
