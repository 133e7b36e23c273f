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
import { type Registry, type RegistryOptions, startRegistry } from "../registry/index.ts";
import type { ContainerdBinary } from "./containerd-binaries.ts";
import { type ContainerdNode, startContainerdNode } from "./containerd-node.ts";
import { enterNamespace, openNetwork, type RigNetwork } from "./network.ts";
import { REGISTRY_PORT, type SpegelNode, startSpegelNode } from "./spegel-node.ts";

type Authentication = NonNullable<RegistryOptions["authentication"]>;

/** The name under which nodes reach the upstream registry; docker.io's leads there as well. */
export const UPSTREAM = "registry.example.test";

/** An image in the upstream registry. */
export interface RigImage {
  /** `registry.example.test/repository:tag` */
  readonly name: string;
  /** `registry.example.test` */
  readonly registry: string;
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
  /** Starts one more registry with the upstream's address and certificate on another port; the caller disposes it. */
  startUpstream(port: number, authentication?: Authentication): Promise<Registry>;
  /** Makes an image and puts it into the upstream registry; gives its full name. */
  addImage(repository: string, tag: string, specification: ImageSpecification): Promise<RigImage>;
  /** Puts an image that exists already into the upstream registry. */
  addLayout(repository: string, tag: string, layout: ImageLayout): Promise<RigImage>;
  /** Resolves when the mirror of every node gives every object of the image that the holder has. */
  untilShared(image: RigImage, holder: number): Promise<void>;
  /** The status with which a node's mirror answers a HEAD for a path below the repository, as containerd would ask. */
  ask(node: number, image: RigImage, path: string): Promise<number>;
}

export interface RigOptions {
  /** One containerd binary per node. */
  readonly containerds: readonly ContainerdBinary[];
  readonly program: readonly string[];
  readonly flags?: readonly string[];
  readonly onLine?: (node: number, line: string) => void;
  /** What the upstream asks of clients. */
  readonly authentication?: Authentication;
  /** The content of containerd does not outlive the unpacking of an image on this node. */
  readonly discardUnpackedLayers?: (node: number) => boolean;
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
  const certificate = await issueCertificate(network.upstream.address, authorityFile);
  const startUpstream = (port: number, authentication: Authentication | undefined): Promise<Registry> =>
    startRegistry({
      address: network.upstream.address,
      port,
      tls: certificate,
      ...(authentication === undefined ? {} : { authentication }),
      signal,
    });
  const registry = opening.use(await startUpstream(443, options.authentication));
  const hosts = `127.0.0.1 localhost\n${network.upstream.address} ${UPSTREAM} second.example.test registry-1.docker.io\n`;

  const containerds: ContainerdNode[] = [];
  const spegels: SpegelNode[] = [];
  for (const [index, namespace] of network.nodes.entries()) {
    const node = await startContainerdNode({
      namespace,
      directory: join(directory, `node-${index + 1}`),
      hosts,
      authorityFile,
      binary: options.containerds[index] as ContainerdBinary,
      discardUnpackedLayers: options.discardUnpackedLayers?.(index) ?? false,
      signal,
    });
    containerds.push(opening.use(node));
    const { onLine } = options;
    const spegel = await startSpegelNode(node, {
      program: options.program,
      bootstrap: () => containerds.find((each) => each.namespace !== namespace),
      ...(options.flags === undefined ? {} : { flags: options.flags }),
      ...(onLine === undefined ? {} : { onLine: (line: string) => onLine(index, line) }),
      signal,
    });
    spegels.push(opening.use(spegel));
  }

  let images = 0;
  async function addLayout(repository: string, tag: string, layout: ImageLayout): Promise<RigImage> {
    await registry.push(layout, tag, repository, { signal });
    return { name: `${UPSTREAM}/${repository}:${tag}`, registry: UPSTREAM, repository, tag, layout };
  }
  const opened = opening.move();
  return {
    network,
    registry,
    containerds,
    spegels,
    startUpstream,
    async addImage(repository, tag, specification) {
      const layout = await makeImage(join(directory, `image-${images++}`), specification, { signal });
      return addLayout(repository, tag, layout);
    },
    addLayout,
    ask: (node, image, path) => ask(containerds[node] as ContainerdNode, image, path, {}, signal),
    async untilShared(image, holder) {
      const source = containerds[holder] as ContainerdNode;
      const paths = [`manifests/${image.tag}`, ...image.layout.objects.map(pathOf)];
      for (const path of paths) {
        // What the holder does not have (other platforms) nobody can find.
        if ((await ask(source, image, path, { "X-Spegel-Mirrored": "true" }, signal)) !== 200) continue;
        for (const node of containerds) {
          while ((await ask(node, image, path, {}, signal)) !== 200) await sleep(20, { signal });
        }
      }
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

async function issueCertificate(
  address: string,
  authorityFile: string,
): Promise<{ readonly certificate: string; readonly key: string }> {
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
  return { certificate: leaf.certificatePem, key: leaf.privateKeyPem };
}

function pathOf(object: ImageObject): string {
  const section = object.kind === "index" || object.kind === "manifest" ? "manifests" : "blobs";
  return `${section}/${object.digest}`;
}

/** The status with which a node's mirror answers a HEAD; 0 when it does not. */
async function ask(
  node: ContainerdNode,
  image: RigImage,
  path: string,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<number> {
  const url = `http://${node.namespace.address}:${REGISTRY_PORT}/v2/${image.repository}/${path}?ns=${encodeURIComponent(image.registry)}`;
  try {
    return (await fetch(url, { method: "HEAD", headers, signal })).status;
  } catch {
    signal.throwIfAborted();
    return 0;
  }
}
