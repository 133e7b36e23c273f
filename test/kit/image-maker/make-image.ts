// SPDX-License-Identifier: Apache-2.0
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Descriptor, digestHex, sha256Digest } from "#oci";
import { type LayerCompression, type WrittenLayer, writeLayer } from "./layer.ts";
import { type ImageLayout, type Platform, readImageLayout } from "./layout.ts";

export interface ImageSpecification {
  /** Same seed, same digests. */
  readonly seed: string;
  /** Size of the one file in each layer's tar, in bytes; at most 8 GiB - 1, which is what a tar header can say. */
  readonly layerSizesBytes: readonly number[];
  /** Files of a first layer below the others; their paths have at most 100 bytes. */
  readonly files?: readonly { readonly path: string; readonly mode: number; readonly bytes: Buffer }[];
  /** Default `none`. */
  readonly compression?: LayerCompression;
  /** One manifest each; default linux/amd64. */
  readonly platforms?: readonly Platform[];
  /** Puts an index above the manifests; default when there is more than one platform. */
  readonly index?: boolean;
  /** Default `oci`. Docker's types have no name for zstd. */
  readonly mediaTypes?: "oci" | "docker";
  /** `org.opencontainers.image.ref.name` in index.json; default `latest`. */
  readonly reference?: string;
}

interface MediaTypes {
  readonly index: string;
  readonly manifest: string;
  readonly config: string;
  readonly layer: Readonly<Record<LayerCompression, string>>;
}

const OCI: MediaTypes = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: {
    none: "application/vnd.oci.image.layer.v1.tar",
    gzip: "application/vnd.oci.image.layer.v1.tar+gzip",
    zstd: "application/vnd.oci.image.layer.v1.tar+zstd",
  },
};

const DOCKER: MediaTypes = {
  index: "application/vnd.docker.distribution.manifest.list.v2+json",
  manifest: "application/vnd.docker.distribution.manifest.v2+json",
  config: "application/vnd.docker.container.image.v1+json",
  layer: {
    none: "application/vnd.docker.image.rootfs.diff.tar",
    gzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    zstd: "application/vnd.docker.image.rootfs.diff.tar.zstd",
  },
};

/**
 * Writes an image into an OCI image layout folder, which is created and should be empty.
 *
 * Memory stays constant whatever the size: layers are generated, compressed, hashed and written as they go.
 */
export async function makeImage(
  directory: string,
  specification: ImageSpecification,
  options: { readonly signal: AbortSignal },
): Promise<ImageLayout> {
  const types = specification.mediaTypes === "docker" ? DOCKER : OCI;
  const platforms = specification.platforms ?? [{ os: "linux", architecture: "amd64" }];
  const blobs = join(directory, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });

  const manifests: (Descriptor & { readonly platform: Platform })[] = [];
  for (const platform of platforms) {
    const manifest = await writeManifest({ blobs, types, platform, specification, signal: options.signal });
    manifests.push({ ...manifest, platform });
  }
  const withIndex = specification.index ?? platforms.length > 1;
  const listed = manifests.map((each) => ({ ...wire(each), platform: each.platform }));
  const roots = withIndex
    ? [
        wire(
          await writeJSON(blobs, types.index, {
            schemaVersion: 2,
            mediaType: types.index,
            manifests: listed,
          }),
        ),
      ]
    : manifests.map(wire);
  await writeLayoutFiles(directory, roots, specification.reference ?? "latest");
  return readImageLayout(directory, options);
}

async function writeManifest(options: {
  readonly blobs: string;
  readonly types: MediaTypes;
  readonly platform: Platform;
  readonly specification: ImageSpecification;
  readonly signal: AbortSignal;
}): Promise<Descriptor> {
  const { blobs, types, platform, specification, signal } = options;
  const compression = specification.compression ?? "none";
  const layers: WrittenLayer[] = [];
  const { files } = specification;
  if (files !== undefined) layers.push(await writeLayer({ blobs, files, compression, signal }));
  for (const [index, sizeBytes] of specification.layerSizesBytes.entries()) {
    const seed = [specification.seed, platform.os, platform.architecture, platform.variant ?? "", index].join(
      "/",
    );
    const content = { path: "content.bin", mode: 0o644, seed, sizeBytes };
    layers.push(await writeLayer({ blobs, files: [content], compression, signal }));
  }
  const config = await writeJSON(blobs, types.config, {
    ...platform,
    created: "2020-01-01T00:00:00Z",
    author: specification.seed,
    config: {},
    rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.diffId) },
  });
  return writeJSON(blobs, types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: wire(config),
    layers: layers.map((layer) => wire({ ...layer, mediaType: types.layer[compression] })),
  });
}

async function writeJSON(blobs: string, mediaType: string, document: object): Promise<Descriptor> {
  const bytes = Buffer.from(JSON.stringify(document));
  const digest = sha256Digest(bytes);
  await writeFile(join(blobs, digestHex(digest)), bytes);
  return { mediaType, digest, sizeBytes: bytes.length };
}

async function writeLayoutFiles(
  directory: string,
  roots: readonly object[],
  reference: string,
): Promise<void> {
  const annotations = { "org.opencontainers.image.ref.name": reference };
  const manifests = roots.map((root) => ({ ...root, annotations }));
  await writeFile(join(directory, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeFile(
    join(directory, "index.json"),
    JSON.stringify({ schemaVersion: 2, mediaType: OCI.index, manifests }),
  );
}

function wire(descriptor: Descriptor): object {
  return { mediaType: descriptor.mediaType, digest: descriptor.digest, size: descriptor.sizeBytes };
}
