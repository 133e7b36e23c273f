// SPDX-License-Identifier: Apache-2.0
import { createShootWebhook, portDefaultsOf } from "#admission";
import { createWebhookCertificates, keepWebhookRegistered } from "#credentials";
import {
  createKubeClient,
  type KubeClient,
  type KubeConnection,
  loadKubeConfig,
  registerWebhook,
} from "#kube";
import type { Logger } from "#log";
import { createMetrics } from "#metrics";
import type { KeyPair } from "#pki";
import { type LeaseTimes, openWebhookProgram, placeWebhook, type WebhookProgram } from "#program";
import packageJSON from "../../package.json" with { type: "json" };
import type { AdmissionFlags } from "./flags.ts";
import { COMPONENT, shootWebhook, WEBHOOK_PATH } from "./shoot-webhook.ts";

export interface AdmissionProgramDeps {
  readonly logger: Logger;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Ends the program: it gives up leadership, stays up for a while without being ready, then stops serving. */
  readonly signal: AbortSignal;
  /** Milliseconds since 1970; default Date.now. */
  readonly now?: () => number;
  /** Default: RSA 3072. */
  readonly createKey?: () => Promise<KeyPair>;
  /** Times that tests shorten. */
  readonly timing?: {
    readonly certificateIntervalMs?: number;
    readonly lease?: LeaseTimes;
  };
}

/** As often as Gardener's extension library looks after the certificates of webhooks. */
const CERTIFICATE_INTERVAL_MS = 300_000;

/**
 * Starts the webhook on every replica, and its registration on the leader.
 *
 * Certificates and the Lease are in the cluster of the pod (the runtime cluster), the registration in the virtual
 * garden, whose API server calls.
 */
export async function openAdmission(
  deps: AdmissionProgramDeps,
  flags: AdmissionFlags,
): Promise<WebhookProgram> {
  const { logger, now = Date.now, createKey } = deps;
  await using parts = new AsyncDisposableStack();
  const { garden, runtime, own } = await connect(parts, deps, flags);
  const place = placeWebhook(flags, COMPONENT, own);
  const metrics = createMetrics();
  const certificates = createWebhookCertificates(
    { client: runtime, logger, metrics, now, ...(createKey && { createKey }) },
    {
      ...place,
      component: COMPONENT,
      name: "registry-spegel-admission",
    },
  );
  const certificateIntervalMs = deps.timing?.certificateIntervalMs ?? CERTIFICATE_INTERVAL_MS;
  const program = parts.use(
    await openWebhookProgram(
      {
        ...deps,
        client: runtime,
        metrics,
        webhook: {
          webhook: createShootWebhook({ logger, metrics }, { operatorDefaults: portDefaultsOf(flags) }),
          certificates,
          path: WEBHOOK_PATH,
        },
        lead: (signal) =>
          keepWebhookRegistered(
            {
              certificates,
              logger,
              register: (caBundlePem) =>
                registerWebhook(garden, shootWebhook({ ...place, caBundlePem }), { signal }),
            },
            { intervalMs: certificateIntervalMs, signal },
          ),
      },
      {
        ...flags,
        leaderElectionNamespace: place.leaseNamespace,
        certificateIntervalMs,
        ...(deps.timing?.lease && { lease: deps.timing.lease }),
      },
    ),
  );
  const running = parts.move();
  return { ...program, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

interface Clusters {
  readonly garden: KubeClient;
  readonly runtime: KubeClient;
  /** Namespace of the pod. */
  readonly own: string | undefined;
}

async function connect(
  parts: AsyncDisposableStack,
  { environment }: AdmissionProgramDeps,
  flags: AdmissionFlags,
): Promise<Clusters> {
  const userAgent = `${COMPONENT}/${packageJSON.version}`;
  const load = (
    path: string | undefined,
    env: AdmissionProgramDeps["environment"],
  ): Promise<KubeConnection> => loadKubeConfig({ env, ...(path !== undefined && { path }) });
  const garden = await load(flags.kubeconfig, environment);
  const runtime = await load(flags.runtimeKubeconfig, { ...environment, KUBECONFIG: undefined });
  return {
    garden: parts.use(createKubeClient(garden, { userAgent })),
    runtime: parts.use(createKubeClient(runtime, { userAgent })),
    own: runtime.namespace,
  };
}
