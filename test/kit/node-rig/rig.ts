// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sleep } from "#async";
import { issueAuthority, issueLeaf } from "#pki";
import {
  type ImageLayout,
  type ImageObject,
  type ImageSpecification,
  makeImage,
} from "../image-maker/index.ts";
import { type Registry, startRegistry } from "../registry/index.ts";
import { type ContainerdNode, startContainerdNode } from "./containerd-node.ts";
import { enterNamespace, openNetwork, type RigNetwork } from "./network.ts";
import { type SpegelNode, startSpegelNode } from "./spegel-node.ts";

/** The name under which nodes reach the upstream registry; docker.io's leads there as well. */
export const UPSTREAM = "registry.example.test";

/** An image in the upstream registry. */
export interface RigImage {
  /** `registry.example.test/repository:tag` */
  readonly name: string;
  readonly repository: string;
  readonly tag: string;
  readonly layout: ImageLayout;
}

/** A cluster in miniature: an upstream registry over TLS, and nodes with a real containerd and the daemon each. */
export interface Rig extends AsyncDisposable {
  readonly network: RigNetwork;
  readonly registry: Registry;
  readonly containerds: readonly ContainerdNode[];
  readonly spegels: readonly SpegelNode[];
  /** Makes an image and puts it into the upstream registry; gives its full name. */
  addImage(repository: string, tag: string, specification: ImageSpecification): Promise<RigImage>;
  /** Resolves when the mirror of every node but `holder` gives every object of the image that the holder has. */
  untilShared(image: RigImage, holder: number): Promise<void>;
  /** Resolves when the mirror of every node but `holder` gives the image's tag and root from peers. */
  untilShared(image: RigImage, holder: number): Promise<void>;
}

export interface RigOptions {
  /** One containerd binary per node. */
  readonly containerds: readonly string[];
  readonly program: readonly string[];
  readonly flags?: readonly string[];
  readonly onLine?: (node: number, line: string) => void;
  readonly signal: AbortSignal;
}

/** Opens a rig; needs root. This process is inside the upstream's namespace until the rig is disposed. */
export async function openRig(options: RigOptions): Promise<Rig> {
  const { signal } = options;
  await using opening = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "node-rig-"));
  opening.defer(() => rm(directory, { recursive: true, force: true }));
  const network = opening.use(await openNetwork({ nodes: options.containerds.length }));
  opening.use(await enterNamespace(network.upstream));

  const authorityFile = join(directory, "authority.pem");
  const registry = opening.use(await startUpstream(network.upstream.address, authorityFile, signal));
  const hosts = `127.0.0.1 localhost\n${network.upstream.address} ${UPSTREAM} second.example.test registry-1.docker.io\n`;

  const containerds: ContainerdNode[] = [];
  const spegels: SpegelNode[] = [];
  for (const [index, namespace] of network.nodes.entries()) {
    const node = await startContainerdNode({
      namespace,
      directory: join(directory, `node-${index + 1}`),
      hosts,
      authorityFile,
      binary: options.containerds[index] as string,
      signal,
    });
    containerds.push(opening.use(node));
    const { onLine } = options;
    const spegel = await startSpegelNode(node, {
      program: options.program,
      ...(containerds[0] === undefined || index === 0 ? {} : { bootstrap: containerds[0] }),
      ...(options.flags === undefined ? {} : { flags: options.flags }),
      ...(onLine === undefined ? {} : { onLine: (line: string) => onLine(index, line) }),
      signal,
    });
    spegels.push(opening.use(spegel));
  }

  let images = 0;
  const opened = opening.move();
  return {
    network,
    registry,
    containerds,
    spegels,
    async addImage(repository, tag, specification) {
      const layout = await makeImage(join(directory, `image-${images++}`), specification, { signal });
      await registry.push(layout, tag, repository, { signal });
      return { name: `${UPSTREAM}/${repository}:${tag}`, repository, tag, layout };
    },
    async untilShared(image, holder) {
      const source = containerds[holder] as ContainerdNode;
      const paths = [`manifests/${image.tag}`, ...image.layout.objects.map(pathOf)];
      for (const path of paths) {
        // What the holder does not have (other platforms) nobody can find.
        if (!(await answers(source, image.repository, path, { "X-Spegel-Mirrored": "true" }, signal)))
          continue;
        for (const node of containerds) {
          while (!(await answers(node, image.repository, path, {}, signal))) await sleep(20, { signal });
        }
      }
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

async function startUpstream(address: string, authorityFile: string, signal: AbortSignal): Promise<Registry> {
  const validity = { nowMs: Date.now(), validityMs: 24 * 3_600_000 };
  const authority = await issueAuthority({ commonName: "rig authority", ...validity });
  const leaf = await issueLeaf(authority, {
    commonName: "upstream",
    usage: "server",
    dnsNames: [UPSTREAM, "second.example.test", "registry-1.docker.io"],
    ipAddresses: [address],
    ...validity,
  });
  await writeFile(authorityFile, authority.certificatePem);
  return startRegistry({
    address,
    port: 443,
    tls: { certificate: leaf.certificatePem, key: leaf.privateKeyPem },
    signal,
  });
}

function pathOf(object: ImageObject): string {
  const section = object.kind === "index" || object.kind === "manifest" ? "manifests" : "blobs";
  return `${section}/${object.digest}`;
}

/** Whether a node's mirror gives an object. */
async function answers(
  node: ContainerdNode,
  repository: string,
  path: string,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<boolean> {
  const url = `http://${node.namespace.address}:5000/v2/${repository}/${path}?ns=${UPSTREAM}`;
  return (await fetch(url, { method: "HEAD", headers, signal })).status === 200;
}
