// SPDX-License-Identifier: Apache-2.0
import { hostname } from "node:os";
import { sleep } from "#async";
import { createProbeServer, formatHostPort, openReviewServer, type ReviewServerDeps } from "#http";
import { type KubeClient, type LeaderElectionOptions, runAsLeader } from "#kube";
import type { Logger } from "#log";
import type { Metrics } from "#metrics";
import type { WebhookFlags } from "./webhook-flags.ts";

export interface WebhookProgramOptions
  extends Pick<
    WebhookFlags,
    | "healthBindAddress"
    | "metricsBindAddress"
    | "webhookConfigServerHost"
    | "webhookConfigServerPort"
    | "leaderElection"
    | "leaderElectionId"
    | "shutdownDelaySeconds"
  > {
  readonly leaderElectionNamespace: string;
  /** Between looks for a newer certificate of the webhook. */
  readonly certificateIntervalMs: number;
  /** Times of the Lease; default those of Kubernetes. */
  readonly lease?: LeaseTimes;
}

export type LeaseTimes = Pick<LeaderElectionOptions, "leaseDurationMs" | "renewDeadlineMs" | "retryPeriodMs">;

export interface WebhookProgramDeps {
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** Ends the program: it gives up leadership, stays up for a while without being ready, then stops serving. */
  readonly signal: AbortSignal;
  /** Of the cluster with the Lease. */
  readonly client: KubeClient;
  /** Absent in a program whose webhook is disabled. */
  readonly webhook?: Pick<ReviewServerDeps, "webhook" | "certificates"> & { readonly path: string };
  /** The work of the one replica that leads; it ends when its signal aborts. */
  lead(signal: AbortSignal): Promise<void>;
}

/** A running program; addresses are those of its sockets. */
export interface WebhookProgram extends AsyncDisposable {
  readonly healthAddress: string;
  readonly metricsAddress: string;
  /** Absent when the webhook is disabled. */
  readonly webhookAddress?: string;
  /** Resolves when the leader's work ended after a stop, rejects when it cannot go on, e.g. leadership was lost. */
  readonly finished: Promise<void>;
}

const WEBHOOK_DURATION = {
  name: "registry_spegel_webhook_duration_seconds",
  help: "Time from the last byte of a request to the webhook to its answer.",
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
} as const;

/**
 * Starts probes, metrics and the webhook on every replica, then the work of the leader; disposing ends them in
 * reverse. It is ready while it serves the webhook and is not stopping, and says so in `registry_spegel_ready`.
 *
 * @throws the reason of the signal, or the system error of listen
 */
export async function openWebhookProgram(
  deps: WebhookProgramDeps,
  options: WebhookProgramOptions,
): Promise<WebhookProgram> {
  const { logger, metrics, webhook } = deps;
  const stop = new AbortController();
  const signal = AbortSignal.any([deps.signal, stop.signal]);
  await using parts = new AsyncDisposableStack();
  let missing = webhook && "the webhook has no certificate yet";
  const notReady = (): string | undefined => (signal.aborted ? "the program is stopping" : missing);
  metrics.observedGauge(
    { name: "registry_spegel_ready", help: "1 while the program is ready, else 0." },
    () => (notReady() === undefined ? 1 : 0),
  );
  const health = parts.use(await createProbeServer({ notReady }, { address: options.healthBindAddress }));
  const scraped = parts.use(await createProbeServer({ metrics }, { address: options.metricsBindAddress }));
  const duration = webhook && metrics.histogram(WEBHOOK_DURATION);
  const server =
    webhook &&
    parts.use(
      await openReviewServer(
        {
          ...webhook,
          logger,
          onWaiting: (reason) => void (missing = `the webhook has no certificate yet: ${reason}`),
          onAnswered: (durationMs) => duration?.observe(durationMs / 1000),
        },
        {
          path: webhook.path,
          address: formatHostPort(options.webhookConfigServerHost, options.webhookConfigServerPort),
          reloadIntervalMs: options.certificateIntervalMs,
          signal,
        },
      ),
    );
  missing = undefined;
  const running = parts.move();
  const finished = leadUntil(signal, deps, options);
  finished.catch(() => {}); // whoever runs the program awaits it
  return {
    healthAddress: health.address,
    metricsAddress: scraped.address,
    ...(server && { webhookAddress: server.address }),
    finished,
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await finished.catch(() => {});
      // The API server may call until it knows that this replica is not ready.
      await sleep(options.shutdownDelaySeconds * 1000, { signal: new AbortController().signal });
      await running.disposeAsync();
      logger.info("stopped");
    },
  };
}

/** Returns when the program is stopped. */
async function leadUntil(
  signal: AbortSignal,
  deps: WebhookProgramDeps,
  options: WebhookProgramOptions,
): Promise<void> {
  try {
    if (!options.leaderElection) return await deps.lead(signal);
    const lease = {
      namespace: options.leaderElectionNamespace,
      name: options.leaderElectionId,
      identity: `${hostname()}_${crypto.randomUUID()}`,
      ...options.lease,
    };
    await runAsLeader(deps, lease, (leading) => deps.lead(leading), { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
