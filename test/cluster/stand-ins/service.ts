// SPDX-License-Identifier: Apache-2.0
/** A stand-in for a Service and kube-proxy: passes TCP connections on to those of its backends that are ready. */
import { get } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export interface Backend {
  /** `host:port` that connections go to. */
  readonly address: string;
  /** URL of the readiness probe; without one it is ready. */
  readonly readinessURL?: string;
}

export interface ServiceStandIn extends AsyncDisposable {
  /** `127.0.0.1:port` */
  readonly address: string;
  readonly port: number;
  /** The backend gets connections while its probe succeeds, until it is disposed. */
  add(backend: Backend): Disposable;
  readonly readyCount: number;
  /** Resolves when so many backends are ready. */
  ready(count: number, options: { readonly signal: AbortSignal }): Promise<void>;
}

const PROBE_INTERVAL_MS = 50;

export async function openService(): Promise<ServiceStandIn> {
  const backends = new Map<Backend, { isReady: boolean }>();
  const sockets = new Set<Socket>();
  let turn = 0;

  const ready = (): Backend[] =>
    [...backends].filter(([, { isReady }]) => isReady).map(([backend]) => backend);

  const server = createServer((client) => {
    const candidates = ready();
    const backend = candidates[turn++ % Math.max(1, candidates.length)];
    if (backend === undefined) return void client.resetAndDestroy();
    const [host, port] = backend.address.split(":");
    const onward = connect(Number(port), host);
    for (const [from, to] of [
      [client, onward],
      [onward, client],
    ] as const) {
      sockets.add(from);
      from.setNoDelay().pipe(to);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  const probing = setInterval(() => {
    for (const [backend, state] of backends) {
      if (backend.readinessURL !== undefined) void probe(backend.readinessURL, state);
    }
  }, PROBE_INTERVAL_MS);
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    address: `127.0.0.1:${port}`,
    get readyCount() {
      return ready().length;
    },
    add(backend) {
      backends.set(backend, { isReady: backend.readinessURL === undefined });
      return { [Symbol.dispose]: () => void backends.delete(backend) };
    },
    async ready(count, { signal }) {
      while (ready().length !== count) {
        signal.throwIfAborted();
        await new Promise((resolve) => setTimeout(resolve, PROBE_INTERVAL_MS));
      }
    },
    async [Symbol.asyncDispose]() {
      clearInterval(probing);
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function probe(url: string, state: { isReady: boolean }): Promise<void> {
  return new Promise((resolve) => {
    const request = get(url, { agent: false }, (response) => {
      response.resume();
      state.isReady = response.statusCode === 200;
      resolve();
    });
    request.on("error", () => {
      state.isReady = false;
      resolve();
    });
  });
}
