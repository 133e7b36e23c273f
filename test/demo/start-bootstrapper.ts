// SPDX-License-Identifier: Apache-2.0
import { fileURLToPath } from "node:url";
import { startProcess } from "../kit/process/index.ts";
import { demand } from "./errors.ts";
import { type DeploymentView, materializePod } from "./materialize-pod.ts";

export interface BootstrapperOptions {
  /** As the extension deployed it. */
  readonly deployment: DeploymentView;
  /** Container port that nodes reach through the gateway. */
  readonly port: number;
  readonly root: string;
  readonly readSecret: (name: string) => Readonly<Record<string, Uint8Array>> | undefined;
  readonly signal: AbortSignal;
}

const READY_TIMEOUT_MS = 15_000;

/** Runs the bootstrapper as its Deployment says, and waits until its readiness probe succeeds. */
export async function startBootstrapper(
  options: BootstrapperOptions,
  running: AsyncDisposableStack,
): Promise<{ readonly address: string; readonly port: number }> {
  const pod = await materializePod(options.deployment, options);
  running.use(
    await startProcess({
      name: "bootstrapper",
      command: process.execPath,
      args: [
        "--disable-warning=ExperimentalWarning",
        fileURLToPath(new URL("../../cmd/bootstrapper/main.ts", import.meta.url)),
        ...pod.args,
        "--shutdown-delay-seconds=0",
      ],
      env: pod.env,
      ready: { kind: "http", url: pod.readinessURL },
      readyTimeoutMs: READY_TIMEOUT_MS,
      signal: options.signal,
    }),
  );
  const port = pod.ports.get(options.port);
  demand(port !== undefined, `the bootstrapper does not listen on ${options.port}`);
  return { address: "127.0.0.1", port };
}
