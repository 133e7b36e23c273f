// SPDX-License-Identifier: Apache-2.0
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Extension } from "#api/gardener";
import { SPEGEL_DEFAULT_PORTS, SPEGEL_PORT_FIELDS, type SpegelConfig, type SpegelPorts } from "#api/spegel";
import { sleep } from "#async";
import { BOOTSTRAPPER_NAME, EXTENSION_NAME, EXTENSION_TYPE, EXTENSIONS } from "#extension";
import { type RunningProcess, startProcess } from "../kit/process/index.ts";
import { DemoError, demand } from "./errors.ts";
import type { DeploymentView } from "./materialize-pod.ts";
import { EXTENSION_NAMESPACE, readExample, type Seed } from "./prepare-seed.ts";

export interface ReconcileOptions {
  /** Node image, pinned by digest. */
  readonly image: string;
  readonly ports: SpegelPorts;
  /** For the extension's kubeconfig. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

/** What the extension made of the Shoot. */
export interface ReconciledShoot {
  readonly bootstrapURL: string;
  readonly deployment: DeploymentView;
  /** Container port that the way from the URL's host name ends at. */
  readonly port: number;
}

const TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 50;

/** Starts the extension, writes the Extension as gardenlet does, and waits until it is reconciled. */
export async function reconcileExtension(
  seed: Seed,
  options: ReconcileOptions,
  running: AsyncDisposableStack,
): Promise<ReconciledShoot> {
  const program = await startExtension(seed, options, running);
  const { signal } = options;
  await seed.client.create(EXTENSIONS, await extensionFor(options.ports), { signal });
  const bootstrapURL = await awaitReconciled(seed, program, signal);
  demand(
    seed.resourceManager.collectGarbage().length === 0,
    "the resource manager's garbage collector would delete Secrets that are in use",
  );
  const deployment = seed.api.get("Deployment", BOOTSTRAPPER_NAME, seed.namespace) as
    | DeploymentView
    | undefined;
  demand(deployment !== undefined, `there is no Deployment ${BOOTSTRAPPER_NAME}`);
  return { bootstrapURL, deployment, port: followRoute(seed, bootstrapURL) };
}

// Without a providerConfig, the normal case, unless something else on this machine has taken the default ports.
async function extensionFor(ports: SpegelPorts): Promise<Extension> {
  const extension = await readExample<Extension>("extension.yaml");
  if (SPEGEL_PORT_FIELDS.every((field) => ports[field] === SPEGEL_DEFAULT_PORTS[field])) return extension;
  const providerConfig = { ...(await readExample<SpegelConfig>("spegelconfig.yaml")), ...ports };
  return { ...extension, spec: { ...extension.spec, providerConfig } };
}

async function startExtension(
  seed: Seed,
  options: ReconcileOptions,
  running: AsyncDisposableStack,
): Promise<RunningProcess> {
  const kubeconfig = join(options.directory, "extension.kubeconfig");
  await writeFile(kubeconfig, seed.api.kubeconfig());
  const program = await startProcess({
    name: "extension",
    command: process.execPath,
    args: [
      "--disable-warning=ExperimentalWarning",
      fileURLToPath(new URL("../../cmd/extension/main.ts", import.meta.url)),
      `--kubeconfig=${kubeconfig}`,
      `--webhook-config-namespace=${EXTENSION_NAMESPACE}`,
      "--webhook-config-server-host=127.0.0.1",
      "--webhook-config-server-port=0",
      "--health-bind-address=127.0.0.1:0",
      "--metrics-bind-address=127.0.0.1:0",
      "--shutdown-delay-seconds=0",
      `--node-image=${options.image}`,
      // Nobody pulls it here: the bootstrapper runs from its sources.
      "--bootstrapper-image=registry.example.test/gardener/extensions/registry-spegel-bootstrapper:dev",
    ],
    ready: { kind: "line", pattern: RUNNING },
    readyTimeoutMs: TIMEOUT_MS,
    signal: options.signal,
  });
  running.use(program);
  const line = await program.waitForLine(RUNNING, { timeoutMs: TIMEOUT_MS, signal: options.signal });
  const { webhook } = JSON.parse(line) as { readonly webhook: string };
  // The Service in front of the webhook.
  seed.api.setService(EXTENSION_NAMESPACE, EXTENSION_NAME, webhook);
  return program;
}

const RUNNING = /"msg":"running"/;

/** Ready as gardenlet sees it: the last operation succeeded, for this generation, and the webhook is registered. */
async function awaitReconciled(seed: Seed, program: RunningProcess, signal: AbortSignal): Promise<string> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  for (;;) {
    const name = { namespace: seed.namespace, name: EXTENSION_TYPE };
    const { metadata, status } = await seed.client.get(EXTENSIONS, name, { signal });
    const { bootstrapURL } = (status?.providerStatus ?? {}) as { readonly bootstrapURL?: string };
    const isDone =
      status?.lastOperation?.state === "Succeeded" &&
      status.observedGeneration === metadata.generation &&
      metadata.annotations?.["gardener.cloud/operation"] === undefined;
    if (isDone && bootstrapURL !== undefined && isWebhookRegistered(seed)) return bootstrapURL;
    const isHopeless = status?.lastError?.codes?.includes("ERR_CONFIGURATION_PROBLEM") === true;
    demand(!isHopeless, `the extension refuses the Extension: ${status?.lastError?.description}`);
    await sleep(POLL_INTERVAL_MS, { signal: deadline }).catch(() => {
      signal.throwIfAborted();
      const told = status?.lastError?.description ?? status?.lastOperation?.description ?? "nothing";
      const message = `the Extension was not reconciled within ${TIMEOUT_MS} ms; its status says: ${told}; the program wrote:\n${program.output.tail(20)}`;
      throw new DemoError({ code: "DEMO_STEP_FAILED", message });
    });
  }
}

function isWebhookRegistered(seed: Seed): boolean {
  const configuration = seed.api.get("MutatingWebhookConfiguration", EXTENSION_NAME) as
    | { readonly webhooks?: readonly { readonly clientConfig?: { readonly caBundle?: string } }[] }
    | undefined;
  return (configuration?.webhooks?.[0]?.clientConfig?.caBundle ?? "") !== "";
}

/** Plays the seed's Istio gateway: from the host name by the VirtualService to the Service and its pod. */
function followRoute(seed: Seed, bootstrapURL: string): number {
  const { hostname } = new URL(bootstrapURL);
  const virtualService = seed.api.get("VirtualService", BOOTSTRAPPER_NAME, seed.namespace) as
    | VirtualService
    | undefined;
  const tls = virtualService?.spec.tls.find((each) =>
    each.match.some((match) => match.sniHosts.includes(hostname)),
  );
  const destination = tls?.route[0]?.destination;
  demand(destination !== undefined, `no VirtualService leads ${hostname} anywhere`);
  const [name = "", namespace] = destination.host.split(".");
  const service = seed.api.get("Service", name, namespace) as Service | undefined;
  const port = service?.spec.ports.find((each) => each.port === destination.port.number)?.targetPort;
  demand(typeof port === "number", `${destination.host}:${destination.port.number} is no port of a Service`);
  return port;
}

interface VirtualService {
  readonly spec: {
    readonly tls: readonly {
      readonly match: readonly { readonly sniHosts: readonly string[] }[];
      readonly route: readonly {
        readonly destination: { readonly host: string; readonly port: { readonly number: number } };
      }[];
    }[];
  };
}

interface Service {
  readonly spec: {
    readonly ports: readonly { readonly port: number; readonly targetPort?: number | string }[];
  };
}
