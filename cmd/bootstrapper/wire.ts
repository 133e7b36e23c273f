// SPDX-License-Identifier: Apache-2.0

import { sleep } from "#async";
import { createHTTPServer, createProbeServer, openCertificateDirectory } from "#http";
import { createKubeClient, loadKubeConfig } from "#kube";
import type { Logger } from "#log";
import { createMetrics } from "#metrics";
import {
  createNodeListMetrics,
  createNodeListRoute,
  type NodeSource,
  openKubernetesNodes,
  openNodesFile,
} from "#nodelist";
import type { BootstrapperFlags } from "./flags.ts";

export interface BootstrapperDeps {
  readonly logger: Logger;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
}

/** A running bootstrapper; the addresses are those of its sockets. */
export interface Bootstrapper extends AsyncDisposable {
  readonly address: string;
  readonly healthAddress: string;
  readonly metricsAddress: string;
}

/**
 * Starts certificates, nodes and servers in this order. Disposing ends them in the reverse one, after a while in which
 * it is not ready but still answers.
 */
export async function openBootstrapper(
  deps: BootstrapperDeps,
  flags: BootstrapperFlags,
): Promise<Bootstrapper> {
  const { logger, signal } = deps;
  const stop = new AbortController();
  const stopping = AbortSignal.any([signal, stop.signal]);
  await using parts = new AsyncDisposableStack();
  const certificates = parts.use(
    await openCertificateDirectory(
      { logger },
      { directory: flags.certificateDirectory, requireClients: true, signal },
    ),
  );
  const source = await openNodes(parts, deps, flags);
  const metrics = createMetrics();
  const handshakeFailures = metrics.counter({
    name: "spegel_bootstrapper_handshake_failures_total",
    help: "Total number of connections that ended in their TLS handshake.",
  });
  const server = parts.use(
    await createHTTPServer(
      { logger, certificates, onHandshakeFailure: () => handshakeFailures.add() },
      {
        address: flags.listenAddress,
        draining: stopping,
        routes: [
          createNodeListRoute(
            { source, metrics: createNodeListMetrics(metrics, source) },
            { families: flags.ipFamilies, limit: flags.limit },
          ),
        ],
      },
    ),
  );
  const notReady = (): string | undefined => {
    if (stopping.aborted) return "the program is stopping";
    return source.nodes() === undefined ? "the nodes are not known yet" : undefined;
  };
  const health = parts.use(await createProbeServer({ notReady }, { address: flags.healthAddress }));
  const metricsServer = parts.use(await createProbeServer({ metrics }, { address: flags.metricsAddress }));
  const running = parts.move();
  return {
    address: server.address,
    healthAddress: health.address,
    metricsAddress: metricsServer.address,
    async [Symbol.asyncDispose]() {
      stop.abort();
      // Connections come until the gateway knows that this replica is not ready.
      await sleep(flags.shutdownDelaySeconds * 1000, { signal: new AbortController().signal });
      await running.disposeAsync();
    },
  };
}

async function openNodes(
  parts: AsyncDisposableStack,
  { logger, environment, signal }: BootstrapperDeps,
  flags: BootstrapperFlags,
): Promise<NodeSource> {
  if (flags.nodesFile !== undefined) {
    return parts.use(await openNodesFile({ logger }, { path: flags.nodesFile, signal }));
  }
  const { kubeconfig: path } = flags;
  const connection = await loadKubeConfig({ env: environment, ...(path === undefined ? {} : { path }) });
  const client = parts.use(createKubeClient(connection, { userAgent: "spegel-bootstrapper" }));
  return parts.use(openKubernetesNodes({ client, logger }));
}
