// SPDX-License-Identifier: Apache-2.0
import { join } from "node:path";
import type { SpegelPorts } from "#api/spegel";
import type { AccountRow } from "./account-sources.ts";
import { awaitFindable } from "./await-findable.ts";
import type { DemoImage } from "./demo-image.ts";
import { createDemoNodes } from "./demo-node.ts";
import { findPorts } from "./free-ports.ts";
import { mutateOSC } from "./mutate-osc.ts";
import { prepareSeed } from "./prepare-seed.ts";
import type { Progress } from "./progress.ts";
import { pinnedReference, provisionNodes } from "./provision-nodes.ts";
import { pullImages } from "./pull-images.ts";
import { reconcileExtension } from "./reconcile-extension.ts";
import { startBootstrapper } from "./start-bootstrapper.ts";
import { startDaemons } from "./start-daemons.ts";
import { startUpstream } from "./start-upstream.ts";
import { verifyPulls } from "./verify-pulls.ts";

export interface ScenarioOptions {
  /** For everything the scenario writes; the caller removes it. */
  readonly directory: string;
  /** `spegel` has the node executable at `/spegel`. */
  readonly images: { readonly spegel: DemoImage; readonly large: DemoImage };
  /** Taken when they are free on every node; otherwise, and by default, any free ones. */
  readonly preferredPorts?: SpegelPorts;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/**
 * The main job: a Shoot gets its mirror, one node pulls from the registry, the registry goes away, the others pull
 * from their neighbours. Nothing is left running when it returns or throws.
 *
 * @returns where every byte came from
 * @throws DemoError DEMO_STEP_FAILED, DEMO_CHECK_FAILED
 */
export async function runScenario(options: ScenarioOptions): Promise<readonly AccountRow[]> {
  const { directory, progress, signal } = options;
  const images = [options.images.spegel, options.images.large];
  await using running = new AsyncDisposableStack();
  const nodes = await createDemoNodes(directory);
  const addresses = nodes.map((node) => node.address);
  const { preferredPorts } = options;
  const ports = await findPorts(addresses, preferredPorts === undefined ? {} : { preferred: preferredPorts });

  progress.step("Start the upstream registry and push the images");
  const upstream = await startUpstream(images, { signal }, running);
  progress.note(`${upstream.registry.name} at ${upstream.registry.origin}, named ${upstream.host}`);

  progress.step("Start the seed: API server, resource manager, the objects of example/");
  const seed = await prepareSeed(nodes, { signal }, running);

  progress.step("Run the extension: it reconciles the Extension and deploys the bootstrapper");
  const image = pinnedReference(options.images.spegel, upstream);
  const shoot = await reconcileExtension(seed, { image, ports, directory, signal }, running);
  progress.note(`bootstrapper at ${shoot.bootstrapURL}`);

  progress.step("Write the OperatingSystemConfig: the webhook adds spegel over TLS");
  const osc = await mutateOSC(seed.client, { signal });

  progress.step("Play the node agent on three nodes");
  const { registryPort } = ports;
  const { readSecret } = seed;
  await provisionNodes(nodes, {
    osc,
    image: options.images.spegel,
    upstream,
    registryPort,
    readSecret,
    signal,
  });

  progress.step("Start the bootstrapper as its Deployment says");
  const root = join(directory, "bootstrapper");
  const bootstrapper = await startBootstrapper({ ...shoot, root, readSecret, signal }, running);

  progress.step("Start spegel on three nodes as its unit says");
  const daemons = await startDaemons(nodes, { ports, bootstrapper, signal }, running);

  progress.step("node-1 pulls both images; nobody else has them");
  const [first, ...others] = nodes;
  if (first === undefined) throw new RangeError("there is no node");
  const earlier = upstream.registry.requests().length;
  const firstPulls = await pullImages(first, images, { upstream, signal });

  progress.step("Stop the upstream registry");
  const asked = upstream.registry.requests().slice(earlier);
  await upstream.registry[Symbol.asyncDispose]();
  await awaitFindable(firstPulls, daemons.slice(1), { signal });

  progress.step("node-2 and node-3 pull both images at the same time");
  const otherPulls = await Promise.all(others.map((node) => pullImages(node, images, { upstream, signal })));

  progress.step("Check every digest and the source of every byte");
  return await verifyPulls([...firstPulls, ...otherPulls.flat()], daemons, { upstream: asked, signal });
}
