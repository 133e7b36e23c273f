// SPDX-License-Identifier: Apache-2.0
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { compose } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { CodedError } from "#errors";
import { type Descriptor, parseManifest } from "#oci";
import { type ImageLayout, type ImageObject, type Platform, platformsOf } from "./layout.ts";
import { readTar } from "./read-tar.ts";

type ImageFileErrorCode = "IMAGE_FILE_MISSING" | "IMAGE_FILE_TOO_LARGE" | "IMAGE_PLATFORM_MISSING";

class ImageFileError extends CodedError<ImageFileErrorCode> {
  override readonly name = "ImageFileError";
}

const MAX_FILE_BYTES = 1024 * 1024 * 1024;

/**
 * A regular file out of an image, as the node agent takes executables out of images: from the topmost layer that
 * has it. Links and whiteouts are not followed.
 *
 * @param path absolute, as `filePathInImage`
 * @throws ImageFileError
 */
export async function readImageFile(
  layout: ImageLayout,
  path: string,
  options: { readonly platform: Platform; readonly signal: AbortSignal },
): Promise<Buffer> {
  const layers = await layersOf(layout, layout.root, options);
  const name = path.replace(/^\/+/, "");
  for (const layer of layers.toReversed()) {
    for await (const entry of readTar(await openLayer(layout.blobPath(layer.digest)))) {
      options.signal.throwIfAborted();
      if (entry.kind !== "file" || entry.name.replace(/^(\.?\/)+/, "") !== name) continue;
      if (entry.sizeBytes > MAX_FILE_BYTES) {
        throw new ImageFileError({
          code: "IMAGE_FILE_TOO_LARGE",
          message: `${path} has ${entry.sizeBytes} bytes`,
        });
      }
      return await entry.read();
    }
  }
  throw new ImageFileError({
    code: "IMAGE_FILE_MISSING",
    message: `${layout.root.digest} has no file ${path}`,
  });
}

async function layersOf(
  layout: ImageLayout,
  parent: ImageObject,
  options: { readonly platform: Platform; readonly signal: AbortSignal },
): Promise<readonly Descriptor[]> {
  const bytes = await readWhole(layout.blobPath(parent.digest), parent.sizeBytes);
  const children = parseManifest(bytes)?.children ?? [];
  if (parent.kind !== "index") return children.slice(1);
  const { os, architecture } = options.platform;
  const index = platformsOf(bytes).findIndex(
    (platform) => platform?.os === os && platform.architecture === architecture,
  );
  const chosen = layout.objects.find((object) => object.digest === children[index]?.digest);
  if (chosen !== undefined) return layersOf(layout, chosen, options);
  const message = `${parent.digest} has no manifest for ${os}/${architecture}`;
  throw new ImageFileError({ code: "IMAGE_PLATFORM_MISSING", message });
}

async function readWhole(path: string, sizeBytes: number): Promise<Buffer> {
  await using file = await open(path);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(sizeBytes), 0, sizeBytes, 0);
  return buffer.subarray(0, bytesRead);
}

// By their first bytes, as containerd does: media types of layers cannot be relied on.
async function openLayer(path: string): Promise<AsyncIterable<Buffer>> {
  const start = await readWhole(path, 4);
  const blob = createReadStream(path, { highWaterMark: 1024 * 1024 });
  if (start.readUInt16BE(0) === 0x1f8b)
    return compose(blob, createGunzip({ chunkSize: 1024 * 1024 })) as AsyncIterable<Buffer>;
  if (start.readUInt32LE(0) === 0xfd2fb528) {
    return compose(blob, createZstdDecompress({ chunkSize: 1024 * 1024 })) as AsyncIterable<Buffer>;
  }
  return blob as AsyncIterable<Buffer>;
}
