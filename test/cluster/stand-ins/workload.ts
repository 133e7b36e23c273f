// SPDX-License-Identifier: Apache-2.0
/**
 * A stand-in for the deployment controller, kubelet and the seed's ingress gateway, for the one Deployment of a
 * bootstrapper: a pod for each of its templates, as a process with its volumes as files; a rolling update when the
 * template changes; and an address that leads to the pods that are ready.
 */
import { createHash } from "node:crypto";
import { mkdtemp } from "node:fs/promises";
import { join } from "node:path";
import { createTaskGroup, sleep } from "#async";
import { BOOTSTRAPPER_NAME } from "#extension";
import { type DeploymentView, materializePod } from "../../demo/materialize-pod.ts";
import { type RunningProcess, startProcess } from "../../kit/process/index.ts";
import type { Landscape } from "../landscape.ts";
import { programCommand } from "../program-command.ts";
import { openService } from "./service.ts";

export interface Workload extends AsyncDisposable {
  /** `127.0.0.1:port` of the gateway. */
  readonly address: string;
  readonly pid: number;
  /** Pods started so far. */
  readonly startedCount: number;
  /** Resolves when one pod of the current template is all there is. */
  settled(): Promise<void>;
}

const POLL_INTERVAL_MS = 50;
/** Until the endpoint of a pod that is told to stop is gone from the gateway; in a cluster it is often more. */
const ENDPOINT_DELAY_MS = 500;
const CONTAINER_PORT = 8443;
const TOKEN_FILE = "/var/run/secrets/gardener.cloud/shoot/generic-kubeconfig/token";

interface Pod {
  readonly process: RunningProcess;
  readonly membership: Disposable;
}

export async function startWorkload(landscape: Landscape, namespace: string): Promise<Workload> {
  const parts = new AsyncDisposableStack();
  const service = parts.use(await openService());
  const { admin } = landscape.seed;
  let current: (Pod & { readonly template: string }) | undefined;
  let startedCount = 0;
  let isChanging = false;
  const ending = new Set<Promise<void>>();

  async function observe(): Promise<string | undefined> {
    const deployment = await admin.find("apps/v1", "Deployment", BOOTSTRAPPER_NAME, namespace);
    const spec = deployment?.["spec"] as { readonly replicas: number; readonly template: object } | undefined;
    const template =
      spec === undefined || spec.replicas === 0
        ? undefined
        : createHash("sha256").update(JSON.stringify(spec.template)).digest("hex");
    if (template === current?.template) return template;
    isChanging = true;
    const old = current;
    current =
      template === undefined
        ? undefined
        : { ...(await startPod(deployment as unknown as DeploymentView)), template };
    if (current !== undefined) await service.ready(old === undefined ? 1 : 2, landscape);
    if (old !== undefined) await end(old);
    isChanging = false;
    return template;
  }

  async function startPod(deployment: DeploymentView): Promise<Pod> {
    const root = await mkdtemp(join(landscape.directory, "pod-"));
    const secrets = await admin.list("v1", "Secret", namespace);
    const pod = await materializePod(deployment, {
      root,
      readSecret(name) {
        const secret = secrets.find(({ metadata }) => metadata.name === name);
        const data = secret?.["data"] as Readonly<Record<string, string>> | undefined;
        if (data === undefined) return undefined;
        return Object.fromEntries(
          Object.entries(data).map(([key, value]) => [key, Buffer.from(value, "base64")]),
        );
      },
    });
    const program = programCommand("registry-spegel-bootstrapper");
    const running = await startProcess({
      name: "bootstrapper",
      command: program.command,
      args: [...program.args, ...pod.args],
      env: pod.env,
      ready: { kind: "http", url: pod.readinessURL },
      readyTimeoutMs: 30_000,
      stopTimeoutMs: 30_000,
      signal: landscape.signal,
    });
    startedCount++;
    const address = `127.0.0.1:${pod.ports.get(CONTAINER_PORT)}`;
    return { process: running, membership: service.add({ address }) };
  }

  /** Told to stop and taken out of the endpoints at the same time: it still gets connections for a while. */
  async function end(pod: Pod): Promise<void> {
    const stopped = pod.process.stop().then(() => {});
    ending.add(stopped);
    void stopped.then(() => ending.delete(stopped));
    await sleep(ENDPOINT_DELAY_MS, landscape);
    pod.membership[Symbol.dispose]();
  }

  await admin.apply(
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "generic-token-kubeconfig-3a1b2c4d", namespace },
      stringData: { kubeconfig: landscape.shoot.front.kubeconfig({ tokenFile: TOKEN_FILE }) },
    },
    "gardenlet",
  );
  parts.defer(async () => {
    if (current !== undefined) await current.process.stop();
    await Promise.all(ending);
  });
  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => {}); // whoever waits for the workload is told
  const tasks = parts.use(createTaskGroup({ signal: landscape.signal }));
  tasks.run("workload", async (signal) => {
    try {
      for (;;) {
        await observe();
        await sleep(POLL_INTERVAL_MS, { signal });
      }
    } catch (error) {
      failure.reject(error);
    }
  });
  return {
    address: service.address,
    get pid() {
      return current?.process.pid ?? 0;
    },
    get startedCount() {
      return startedCount;
    },
    async settled() {
      for (let same = 0; same < 3; same = isChanging || service.readyCount !== 1 ? 0 : same + 1) {
        await Promise.race([sleep(2 * POLL_INTERVAL_MS, landscape), failure.promise]);
      }
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}
