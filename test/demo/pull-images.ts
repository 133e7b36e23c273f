// SPDX-License-Identifier: Apache-2.0
import { openOCILayoutStore } from "#store";
import { createPullClient, type PullReport } from "../kit/pull-client/index.ts";
import type { DemoImage } from "./demo-image.ts";
import type { DemoNode } from "./demo-node.ts";
import type { Upstream } from "./start-upstream.ts";

/** One image on one node. */
export interface NodePull {
  readonly node: DemoNode;
  readonly image: DemoImage;
  readonly report: PullReport;
}

// Far more than a pull here takes; containerd's own 5 minutes would only hide a hang.
const PROGRESS_TIMEOUT_MS = 20_000;

/** Pulls all images on one node, one after the other, through the hosts.toml that the node agent wrote. */
export async function pullImages(
  node: DemoNode,
  images: readonly DemoImage[],
  options: { readonly upstream: Upstream; readonly signal: AbortSignal },
): Promise<readonly NodePull[]> {
  const pulls: NodePull[] = [];
  for (const image of images) {
    const reference = `${options.upstream.host}/${image.repository}:${image.tag}`;
    const report = await pullInto(node.storeDirectory, node, reference, options);
    pulls.push({ node, image, report });
  }
  return pulls;
}

/** Pulls one image as containerd on this node would, into an OCI layout folder. */
export async function pullInto(
  directory: string,
  node: DemoNode,
  reference: string,
  options: { readonly upstream: Upstream; readonly signal: AbortSignal },
): Promise<PullReport> {
  const { upstream, signal } = options;
  const store = await openOCILayoutStore({ directory }, { signal });
  using client = createPullClient({
    hostsDirectory: node.hostsDirectory,
    store,
    platform: hostPlatform(),
    localAddress: node.address,
    authorities: [upstream.authority],
    progressTimeoutMs: PROGRESS_TIMEOUT_MS,
    dial: (address) => dialFrom(node, upstream, address),
  });
  return await client.pull(reference, { signal });
}

export function hostPlatform(): { readonly os: string; readonly architecture: string } {
  return { os: "linux", architecture: process.arch === "x64" ? "amd64" : process.arch };
}

// The node's view of the network: localhost is the node itself, and the registry's name leads to the registry.
function dialFrom(
  node: DemoNode,
  upstream: Upstream,
  address: { readonly host: string; readonly port: number },
): { readonly host: string; readonly port: number } {
  if (address.host === "localhost") return { ...address, host: node.address };
  if (address.host === upstream.host) return { host: "127.0.0.1", port: upstream.registry.port };
  return address;
}
