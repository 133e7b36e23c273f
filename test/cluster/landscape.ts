// SPDX-License-Identifier: Apache-2.0
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sleep } from "#async";
import { type ApiObjectInit, readManifests } from "#kit/api-server";
import { createKubeClient, type KubeClient, parseKubeConfig } from "#kube";
import {
  type APIServerFront,
  buildKubeParts,
  createRawClient,
  type KubeAPIServer,
  openFront,
  type RawClient,
  startEtcd,
  startKubeAPIServer,
} from "../kit/kube-parts/index.ts";
import { createGardenlet, type Gardenlet } from "./stand-ins/gardenlet.ts";
import { type ResourceManager, startResourceManager } from "./stand-ins/resource-manager.ts";

/** One of the two clusters: a real API server, and a front before it that everything under test goes through. */
export interface RealCluster {
  readonly server: KubeAPIServer;
  readonly front: APIServerFront;
  /** The admin, past the front. */
  readonly admin: RawClient;
}

/** A seed and a Shoot, and around the extension what Gardener has there. */
export interface Landscape extends AsyncDisposable {
  readonly seed: RealCluster;
  readonly shoot: RealCluster;
  readonly gardenlet: Gardenlet;
  readonly resourceManager: ResourceManager;
  /** For files of programs; goes with the landscape. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

/** `own`: the fields that this project uses. `full`: Gardener's and Istio's, where the machine has them. */
export type CustomResources = "own" | "full";

const OWN_DIRECTORY = new URL("crds/", import.meta.url);
const FULL_DIRECTORY = new URL("../../../shared/crds/", import.meta.url);

/** The sets of custom resources that can be tested with here. */
export const CUSTOM_RESOURCES: readonly CustomResources[] = existsSync(FULL_DIRECTORY)
  ? ["own", "full"]
  : ["own"];

/** Everything ends then, so that nothing waits forever. */
const LIFETIME_MS = 600_000;
const POLL_INTERVAL_MS = 25;

/** Starts etcd and both API servers: about three seconds. */
export async function startLandscape(
  options: { readonly customResources?: CustomResources; readonly lifetimeMs?: number } = {},
): Promise<Landscape> {
  await using parts = new AsyncDisposableStack();
  const signal = AbortSignal.timeout(options.lifetimeMs ?? LIFETIME_MS);
  const directory = await mkdtemp(join(tmpdir(), "landscape-"));
  parts.defer(() => rm(directory, { recursive: true, force: true }));
  const paths = await buildKubeParts({ report: console.log, signal });
  const etcd = parts.use(await startEtcd({ path: paths.etcd, signal }));
  const start = (prefix: string): Promise<KubeAPIServer> =>
    startKubeAPIServer({ path: paths.kubeAPIServer, etcdURL: etcd.url, prefix, signal });
  const started = await Promise.allSettled([start("seed"), start("shoot")]);
  for (const each of started) if (each.status === "fulfilled") parts.use(each.value);
  for (const each of started) if (each.status === "rejected") throw each.reason;
  const [seed, shoot] = await Promise.all(
    started.map(async (each) => {
      const server = (each as PromiseFulfilledResult<KubeAPIServer>).value;
      return { server, front: parts.use(await openFront(server)), admin: parts.use(createRawClient(server)) };
    }),
  );
  if (seed === undefined || shoot === undefined) throw new Error("two API servers were asked for");
  await installCustomResources(seed.admin, options.customResources ?? "own", signal);
  const resourceManager = parts.use(await startResourceManager(seed, shoot));
  const client = parts.use(await adminClient(seed));
  const gardenlet = createGardenlet(client, {
    signal,
    ...(options.lifetimeMs !== undefined && { readyTimeoutMs: options.lifetimeMs }),
  });
  const running = parts.move();
  return {
    seed,
    shoot,
    gardenlet,
    resourceManager,
    directory,
    signal,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** A client of the admin through the front, so that what it writes is checked as well. */
async function adminClient(cluster: RealCluster): Promise<KubeClient> {
  const connection = await parseKubeConfig(cluster.front.kubeconfig(), { directory: "/", source: "front" });
  return createKubeClient(connection, { userAgent: "gardenlet", requestsPerSecond: 10_000 });
}

async function installCustomResources(
  admin: RawClient,
  set: CustomResources,
  signal: AbortSignal,
): Promise<void> {
  const own = await readDefinitions(OWN_DIRECTORY);
  const names = new Set(own.map((each) => each.metadata.name));
  const full = set === "full" ? await readDefinitions(FULL_DIRECTORY) : [];
  const wanted = set === "full" ? full.filter((each) => names.has(each.metadata.name)) : own;
  const missing = [...names].filter((name) => !wanted.some((each) => each.metadata.name === name));
  if (missing.length > 0) throw new Error(`no definition of ${missing.join(", ")}`);
  await Promise.all(wanted.map((definition) => admin.apply(definition, "test")));
  for (;;) {
    const installed = await admin.list("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    if (installed.every(isEstablished)) break;
    await sleep(POLL_INTERVAL_MS, { signal });
  }
  for (const { spec } of wanted as unknown as CustomResourceDefinition[])
    await awaitServed(admin, spec, signal);
}

interface CustomResourceDefinition {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly plural: string };
    readonly versions: readonly { readonly name: string; readonly served: boolean }[];
  };
}

/** Established is not yet served: for a moment the API server answers 404, then 429. */
async function awaitServed(
  admin: RawClient,
  { group, names, versions }: CustomResourceDefinition["spec"],
  signal: AbortSignal,
): Promise<void> {
  for (const { name } of versions.filter(({ served }) => served)) {
    while ((await admin.call("GET", `/apis/${group}/${name}/${names.plural}`)).status !== 200) {
      await sleep(POLL_INTERVAL_MS, { signal });
    }
  }
}

async function readDefinitions(directory: URL): Promise<ApiObjectInit[]> {
  const files = (await readdir(directory)).filter((file) => file.endsWith(".yaml")).sort();
  const documents = await Promise.all(files.map((file) => readManifests(new URL(file, directory))));
  return documents.flat().filter((each) => each?.kind === "CustomResourceDefinition");
}

function isEstablished(definition: object): boolean {
  const { status } = definition as {
    readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
  };
  return status?.conditions?.some((each) => each.type === "Established" && each.status === "True") === true;
}
