// SPDX-License-Identifier: Apache-2.0
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { OperatingSystemConfig } from "#api/gardener";
import { applyOSC } from "#kit/node-agent";
import {
  CA_CERTIFICATE_FILE,
  CERTIFICATE_DIRECTORY,
  CLIENT_CERTIFICATE_FILE,
  CLIENT_KEY_FILE,
  CONTAINERD_CERTS_DIRECTORY,
  SPEGEL_BINARY_PATH,
  SPEGEL_LIBRARIES,
} from "#nodelayout";
import { readImageFile, readImageLayout } from "../kit/image-maker/index.ts";
import type { DemoImage } from "./demo-image.ts";
import type { DemoNode } from "./demo-node.ts";
import { demand } from "./errors.ts";
import { hostPlatform, pullInto } from "./pull-images.ts";
import { readExecStart } from "./read-unit.ts";
import type { Upstream } from "./start-upstream.ts";

export interface ProvisionOptions {
  readonly osc: OperatingSystemConfig;
  /** The image that `/opt/bin/spegel` is taken from. */
  readonly image: DemoImage;
  readonly upstream: Upstream;
  readonly registryPort: number;
  /** Data of a Secret in the Shoot's namespace, keys to bytes. */
  readonly readSecret: (name: string) => Readonly<Record<string, Uint8Array>> | undefined;
  readonly signal: AbortSignal;
}

/** Plays the node agent on each node: writes the OperatingSystemConfig into its folder, and checks what is there. */
export async function provisionNodes(nodes: readonly DemoNode[], options: ProvisionOptions): Promise<void> {
  for (const node of nodes) {
    await applyOSC(options.osc, {
      root: node.root,
      hostName: node.name,
      resolveSecret: async (name) => options.readSecret(name),
      extractImageFile: (image, path) => extractImageFile(node, image, path, options),
    });
    await checkNode(node, options);
  }
}

/** The name of the node image as the extension is told it: pinned by digest. */
export function pinnedReference(image: DemoImage, upstream: Pick<Upstream, "host">): string {
  return `${upstream.host}/${image.repository}@${image.layout.root.digest}`;
}

// The node agent pulls with containerd into a namespace of its own, so that these blobs are not what pods share.
async function extractImageFile(
  node: DemoNode,
  reference: string,
  path: string,
  options: ProvisionOptions,
): Promise<Uint8Array> {
  const { image, upstream, signal } = options;
  // Executables of others, such as kubelet: nothing here runs them.
  if (reference !== pinnedReference(image, upstream))
    return Buffer.from(`#!/bin/sh\n# ${path} of ${reference}\n`);
  const directory = join(node.root, "var/lib/node-agent-content");
  await pullInto(directory, node, reference, { upstream, signal });
  const platform = hostPlatform();
  const layout = await readImageLayout(directory, { reference, platform, signal });
  return readImageFile(layout, path, { platform, signal });
}

async function checkNode(node: DemoNode, options: ProvisionOptions): Promise<void> {
  const modes: Readonly<Record<string, number>> = {
    [SPEGEL_BINARY_PATH]: 0o755,
    ...Object.fromEntries(SPEGEL_LIBRARIES.map(({ path }) => [path, 0o644])),
    [`${CERTIFICATE_DIRECTORY}/${CA_CERTIFICATE_FILE}`]: 0o644,
    [`${CERTIFICATE_DIRECTORY}/${CLIENT_CERTIFICATE_FILE}`]: 0o644,
    [`${CERTIFICATE_DIRECTORY}/${CLIENT_KEY_FILE}`]: 0o600,
  };
  for (const [path, mode] of Object.entries(modes)) {
    const found = await stat(join(node.root, path)).catch(() => undefined);
    demand(found !== undefined && found.size > 0, `${node.name} has no ${path}`);
    demand(
      (found.mode & 0o777) === mode,
      `${path} on ${node.name} has mode ${(found.mode & 0o777).toString(8)}`,
    );
  }
  const hosts = await readFile(join(node.root, CONTAINERD_CERTS_DIRECTORY, "_default/hosts.toml"), "utf8");
  demand(
    hosts === expectedHosts(options.registryPort),
    `_default/hosts.toml on ${node.name} is not what containerd expects:\n${hosts}`,
  );
  const [executable] = await readExecStart(node);
  demand(executable === SPEGEL_BINARY_PATH, `the unit on ${node.name} starts ${executable}`);
}

function expectedHosts(registryPort: number): string {
  return [
    "# managed by gardener-node-agent",
    `[host."http://localhost:${registryPort}"]`,
    '  capabilities = ["pull","resolve"]',
    "",
    "",
  ].join("\n");
}
