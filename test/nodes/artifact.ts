// SPDX-License-Identifier: Apache-2.0
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { digestHex, sha256Digest } from "#oci";
import { type ImageLayout, readImageLayout } from "../kit/image-maker/index.ts";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";

/** Blobs that a mirror might take for something else than a blob. An empty one no containerd fetches, from anywhere. */
const BLOBS: readonly Buffer[] = [
  Buffer.from("{}"),
  Buffer.from("[1, 2, 3]"),
  Buffer.from("42"),
  Buffer.from('{"hello": "world"}'),
  Buffer.from(`{"schemaVersion": 2, "mediaType": "${MANIFEST}", "config": {}, "layers": []}`),
  Buffer.from("{ not JSON at all"),
  Buffer.alloc(3 * 1024 * 1024, "7"),
];

/** Writes an OCI artifact (image specification, "Guidelines for Artifact Usage") that no platform can run. */
export async function makeArtifact(
  directory: string,
  options: { readonly seed: string; readonly signal: AbortSignal },
): Promise<ImageLayout> {
  const blobs = join(directory, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });
  const add = async (mediaType: string, bytes: Buffer): Promise<object> => {
    const digest = sha256Digest(bytes);
    await writeFile(join(blobs, digestHex(digest)), bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST,
    artifactType: "application/vnd.example.report",
    config: await add("application/vnd.oci.empty.v1+json", Buffer.from("{}")),
    layers: await Promise.all(
      [...BLOBS, Buffer.from(options.seed)].map((bytes) => add("application/vnd.example.part", bytes)),
    ),
  };
  const root = await add(MANIFEST, Buffer.from(JSON.stringify(manifest)));
  const annotations = { "org.opencontainers.image.ref.name": "latest" };
  await writeFile(join(directory, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeFile(
    join(directory, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...root, annotations }] }),
  );
  return readImageLayout(directory, options);
}
