// SPDX-License-Identifier: Apache-2.0
/**
 * Many nodes of a swarm in one process, each with keys of its own:
 *
 *   node swarm-peers.ts PEER KEYS ADDRESS...     PEER is a multiaddr with /p2p/, ADDRESS is `ip:port`
 *
 * Prints `announced` once every node has handed its keys to its router, and stays until it is told to stop.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import net from "node:net";
import { silentLogger } from "#log";
import { sha256Digest } from "#oci";
import { createStaticBootstrap, openSwarm, silentSwarmMetrics } from "#swarm";

const [peer = "", keys = "0", ...addresses] = process.argv.slice(2);
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());
const { signal } = stop;

/** Each node connects from its own address, as on machines of their own: a node takes few from one address. */
const source = new AsyncLocalStorage<string>();
const { connect } = net;
net.connect = ((options: net.TcpNetConnectOpts, listener?: () => void) => {
  const localAddress = source.getStore();
  return connect(localAddress === undefined ? options : { ...options, localAddress }, listener);
}) as typeof net.connect;

await using swarms = new AsyncDisposableStack();
for (const address of addresses) {
  const swarm = swarms.use(
    await source.run(address.split(":", 1)[0] as string, () =>
      openSwarm(
        {
          logger: silentLogger,
          metrics: silentSwarmMetrics,
          bootstrap: [createStaticBootstrap({ addresses: [peer], defaultPort: 5001 })],
        },
        { routerAddress: address, dataDirectory: undefined, signal },
      ),
    ),
  );
  const own = Array.from({ length: Number(keys) }, (_, index) =>
    sha256Digest(Buffer.from(`${process.pid} ${address} ${index}`)),
  );
  await swarm.advertise(own, { signal });
}
console.log("announced");
const keepAlive = setInterval(() => {}, 60_000);
await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
clearInterval(keepAlive);
