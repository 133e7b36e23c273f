// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { EXTENSION_NAME } from "#extension";
import type { LeaderElectionOptions } from "#kube";
import { silentLogger } from "#log";
import { createKeyPair, type KeyPair } from "#pki";
import { readFlags } from "../../cmd/extension/flags.ts";
import { openExtension } from "../../cmd/extension/wire.ts";
import { type RunningProcess, startProcess } from "../kit/process/index.ts";
import { extensionInstallation } from "./extension-rights.ts";
import type { Landscape } from "./landscape.ts";
import { programCommand } from "./program-command.ts";
import { openService, type ServiceStandIn } from "./stand-ins/service.ts";

/** An installed extension: its namespace, its rights, and the way to its webhook. Replicas are started one by one. */
export interface Installation extends AsyncDisposable {
  readonly namespace: string;
  readonly service: ServiceStandIn;
  /** The program with its real settings, as a process. */
  spawn(args?: readonly string[]): Promise<SpawnedReplica>;
  /** The same program in this process, with shorter waits and keys that are made once. */
  open(args?: readonly string[], options?: OpenOptions): Promise<OpenReplica>;
}

export interface OpenOptions {
  readonly now?: () => number;
  /** Until what is not healthy is reported. */
  readonly healthTimeoutMs?: number;
  readonly lease?: Pick<LeaderElectionOptions, "leaseDurationMs" | "renewDeadlineMs" | "retryPeriodMs">;
}

export interface SpawnedReplica extends AsyncDisposable {
  readonly process: RunningProcess;
  readonly metricsAddress: string;
}

export interface OpenReplica extends AsyncDisposable {
  readonly metricsAddress: string;
  readonly finished: Promise<void>;
  /** As SIGTERM does. */
  stop(): void;
}

export const NODE_IMAGE = "registry.example.org/spegel@sha256:bb";
const RUNNING = /"msg":"running"/;
const READY_TIMEOUT_MS = 30_000;
const TIMING = { pollIntervalMs: 20, healthTimeoutMs: 20_000, deletionTimeoutMs: 20_000 };
const BACKOFF = { initialMs: 20, maxMs: 200 };

let keys: Promise<KeyPair[]> | undefined;

/** Keys are what takes time; certificates of them are new each time. */
function keyMaker(): () => Promise<KeyPair> {
  let index = 0;
  keys ??= Promise.all(Array.from({ length: 8 }, () => createKeyPair({ bits: 2048 })));
  const made = keys;
  return async () => (await made)[index++ % 8] as KeyPair;
}

export async function installExtension(landscape: Landscape): Promise<Installation> {
  const parts = new AsyncDisposableStack();
  const { admin } = landscape.seed;
  const namespace = `extension-registry-spegel-${randomBytes(3).toString("hex")}`;
  for (const object of await extensionInstallation(namespace)) await admin.apply(object, "test");
  const tokenFile = join(landscape.directory, `${namespace}.token`);
  await writeFile(tokenFile, await admin.requestToken({ namespace, name: EXTENSION_NAME }));
  const kubeconfig = join(landscape.directory, `${namespace}.kubeconfig`);
  await writeFile(kubeconfig, landscape.seed.front.kubeconfig({ tokenFile }));
  const service = parts.use(await openService());
  const base = [
    `--kubeconfig=${kubeconfig}`,
    `--webhook-config-namespace=${namespace}`,
    "--webhook-config-mode=url",
    `--webhook-config-url=${service.address}`,
    "--webhook-config-server-host=127.0.0.1",
    "--webhook-config-server-port=0",
    "--health-bind-address=127.0.0.1:0",
    "--metrics-bind-address=127.0.0.1:0",
    "--bootstrapper-image=registry.example.org/registry-spegel-bootstrapper@sha256:aa",
    `--node-image=${NODE_IMAGE}`,
  ];
  const joinService = (webhook: string | undefined, health: string): Disposable =>
    service.add({ address: webhook ?? "", readinessURL: `http://${health}/readyz` });
  return {
    namespace,
    service,
    async spawn(args = []) {
      const program = programCommand("gardener-extension-registry-spegel");
      const running = await startProcess({
        name: "extension",
        command: program.command,
        args: [...program.args, ...base, "--shutdown-delay-seconds=1", ...args],
        ready: { kind: "line", pattern: RUNNING },
        readyTimeoutMs: READY_TIMEOUT_MS,
        signal: landscape.signal,
      });
      const line = running.output.lines.find(({ text }) => RUNNING.test(text));
      const { webhook, health, metrics } = JSON.parse(line?.text ?? "{}") as Record<string, string>;
      const membership = joinService(webhook, health as string);
      return {
        process: running,
        metricsAddress: metrics as string,
        async [Symbol.asyncDispose]() {
          await running.stop();
          membership[Symbol.dispose]();
        },
      };
    },
    async open(args = [], options = {}) {
      const stop = new AbortController();
      const flags = await readFlags({
        // It looks far more often than in a seed.
        argv: [
          ...base,
          "--leader-election=false",
          "--shutdown-delay-seconds=0",
          "--kube-api-qps=10000",
          "--kube-api-burst=10000",
          ...args,
        ],
        environment: {},
      });
      const program = await openExtension(
        {
          logger: silentLogger,
          environment: {},
          signal: stop.signal,
          createKey: keyMaker(),
          ...(options.now && { now: options.now }),
          timing: {
            ...TIMING,
            backoff: BACKOFF,
            certificateIntervalMs: 100,
            ...(options.healthTimeoutMs !== undefined && { healthTimeoutMs: options.healthTimeoutMs }),
            ...(options.lease && { lease: options.lease }),
          },
        },
        flags,
      );
      const membership = joinService(program.webhookAddress, program.healthAddress);
      return {
        metricsAddress: program.metricsAddress,
        finished: program.finished,
        stop: () => stop.abort(),
        async [Symbol.asyncDispose]() {
          stop.abort();
          await program[Symbol.asyncDispose]();
          membership[Symbol.dispose]();
        },
      };
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}
