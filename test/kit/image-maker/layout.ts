// SPDX-License-Identifier: Apache-2.0
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { CodedError, errorMessage } from "#errors";
import {
  type Descriptor,
  type Digest,
  digestAlgorithm,
  digestHex,
  isManifestMediaType,
  parseManifest,
} from "#oci";

type ImageLayoutErrorCode = "IMAGE_LAYOUT_INVALID" | "IMAGE_LAYOUT_AMBIGUOUS" | "IMAGE_LAYOUT_INCOMPLETE";

class ImageLayoutError extends CodedError<ImageLayoutErrorCode> {
  override readonly name = "ImageLayoutError";
}

export type ImageObjectKind = "index" | "manifest" | "config" | "layer";

/** A platform of the OCI image specification. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

export interface ImageObject extends Descriptor {
  readonly kind: ImageObjectKind;
}

/** One image in an OCI image layout folder. */
export interface ImageLayout {
  readonly directory: string;
  /** The index or manifest that a tag points at. */
  readonly root: ImageObject;
  /** All objects once, children before their parents: the order in which they can be pushed. */
  readonly objects: readonly ImageObject[];
  blobPath(digest: Digest): string;
}

const REF_NAME = "org.opencontainers.image.ref.name";
// index -> manifest -> config and layers, and one level to spare for nested indexes.
const MAX_DEPTH = 4;
const MAX_OBJECTS = 10_000;

/**
 * Reads one image of an OCI image layout folder and checks that each object is there in its full size.
 *
 * @param options.reference the `org.opencontainers.image.ref.name` to choose when the folder holds several images
 * @param options.platform leaves out the manifests for other platforms, which a pull for this one does not fetch
 * @throws ImageLayoutError
 */
export async function readImageLayout(
  directory: string,
  options: { readonly reference?: string; readonly platform?: Platform; readonly signal: AbortSignal },
): Promise<ImageLayout> {
  const blobPath = (digest: Digest): string =>
    join(directory, "blobs", digestAlgorithm(digest), digestHex(digest));
  const root = await readRoot(directory, options);
  const objects = new Map<Digest, ImageObject>();

  async function visit(object: ImageObject, depth: number): Promise<void> {
    if (objects.has(object.digest)) return;
    await checkSize(blobPath(object.digest), object, options.signal);
    if (object.kind === "index" || object.kind === "manifest") {
      if (depth >= MAX_DEPTH) throw invalid(directory, "its indexes are nested too deeply");
      for (const child of await readChildren(blobPath(object.digest), object, options))
        await visit(child, depth + 1);
    }
    if (objects.size >= MAX_OBJECTS) throw invalid(directory, `it has more than ${MAX_OBJECTS} objects`);
    objects.set(object.digest, object);
  }

  await visit(root, 0);
  return { directory, root, objects: [...objects.values()], blobPath };
}

async function readRoot(
  directory: string,
  options: { readonly reference?: string; readonly signal: AbortSignal },
): Promise<ImageObject> {
  const { reference, signal } = options;
  const bytes = await readFile(join(directory, "index.json"), { signal }).catch((error: unknown) => {
    signal.throwIfAborted();
    throw invalid(directory, "index.json cannot be read", error);
  });
  const listed = descriptorsOf(bytes, directory, "index.json");
  const names = refNames(bytes);
  const candidates =
    reference === undefined ? listed : listed.filter((_, index) => names[index] === reference);
  const [root, other] = candidates;
  if (root === undefined)
    throw invalid(
      directory,
      reference === undefined ? "it holds no image" : `it holds no image named ${reference}`,
    );
  if (other !== undefined) {
    throw new ImageLayoutError({
      code: "IMAGE_LAYOUT_AMBIGUOUS",
      message: `${directory} holds ${candidates.length} images; choose one of: ${names.join(", ")}`,
    });
  }
  return objectOf(root);
}

async function readChildren(
  path: string,
  parent: ImageObject,
  options: { readonly platform?: Platform; readonly signal: AbortSignal },
): Promise<ImageObject[]> {
  const bytes = await readFile(path, { signal: options.signal });
  const children = descriptorsOf(bytes, path, parent.digest);
  // A manifest's first child is its config, the others are layers; an index has manifests only.
  if (parent.kind === "manifest") {
    return children.map((child, index) => ({ ...child, kind: index === 0 ? "config" : "layer" }));
  }
  const platforms = platformsOf(bytes);
  return children
    .filter((_, index) => isFor(platforms[index], options.platform))
    .map((child) => objectOf(child));
}

function isFor(offered: Partial<Platform> | undefined, wanted: Platform | undefined): boolean {
  if (wanted === undefined || offered === undefined) return true;
  return offered.os === wanted.os && offered.architecture === wanted.architecture;
}

function descriptorsOf(bytes: Uint8Array, directory: string, name: string): readonly Descriptor[] {
  try {
    const parsed = parseManifest(bytes);
    if (parsed !== undefined) return parsed.children;
  } catch (error) {
    throw invalid(directory, `${name} is malformed`, error);
  }
  throw invalid(directory, `${name} is neither an index nor a manifest`);
}

// The descriptors are validated when this runs; only the annotation is still unknown.
function refNames(bytes: Uint8Array): readonly (string | undefined)[] {
  const document = JSON.parse(Buffer.from(bytes).toString("utf8")) as {
    readonly manifests?: readonly { readonly annotations?: Readonly<Record<string, unknown>> }[];
  };
  return (document.manifests ?? []).map(({ annotations }) => {
    const name = annotations?.[REF_NAME];
    return typeof name === "string" ? name : undefined;
  });
}

/** What an index says of each of its manifests; its descriptors are validated when this runs. */
export function platformsOf(bytes: Uint8Array): readonly (Partial<Platform> | undefined)[] {
  const document = JSON.parse(Buffer.from(bytes).toString("utf8")) as {
    readonly manifests: readonly { readonly platform?: Partial<Platform> }[];
  };
  return document.manifests.map((each) => each.platform);
}

function objectOf(descriptor: Descriptor): ImageObject {
  if (!isManifestMediaType(descriptor.mediaType)) return { ...descriptor, kind: "layer" };
  const isIndex = descriptor.mediaType.includes("index") || descriptor.mediaType.includes("manifest.list");
  return { ...descriptor, kind: isIndex ? "index" : "manifest" };
}

async function checkSize(path: string, object: ImageObject, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const found = await stat(path).catch(() => undefined);
  if (found?.size === object.sizeBytes) return;
  throw new ImageLayoutError({
    code: "IMAGE_LAYOUT_INCOMPLETE",
    message: `${object.kind} ${object.digest} ${found === undefined ? "is missing" : `has ${found.size} instead of ${object.sizeBytes} bytes`}`,
  });
}

function invalid(directory: string, reason: string, cause?: unknown): ImageLayoutError {
  const message = `${directory} is no usable image layout: ${reason}${cause === undefined ? "" : ` (${errorMessage(cause)})`}`;
  return new ImageLayoutError({ code: "IMAGE_LAYOUT_INVALID", message, cause });
}
