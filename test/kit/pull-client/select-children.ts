// SPDX-License-Identifier: Apache-2.0
import { errorMessage } from "#errors";
import { type Descriptor, isManifestMediaType, parseManifest } from "#oci";
import type { ImageObjectKind, Platform } from "../image-maker/index.ts";
import { PullError } from "./errors.ts";

export interface Child extends Descriptor {
  readonly kind: ImageObjectKind;
}

/**
 * What a node fetches after an index or manifest: of an index the one manifest for its platform, of a manifest
 * the config and each layer once.
 *
 * @throws PullError PULL_MANIFEST_INVALID, PULL_PLATFORM_MISSING
 */
export function selectChildren(parent: Child, bytes: Buffer, platform: Platform): readonly Child[] {
  const children = parse(parent, bytes);
  if (parent.kind === "index") {
    const chosen = children.find((_, index) => matches(platformsOf(bytes)[index], platform));
    if (chosen !== undefined) return [{ ...chosen, kind: kindOf(chosen.mediaType) }];
    const message = `${parent.digest} has no manifest for ${platform.os}/${platform.architecture}`;
    throw new PullError({ code: "PULL_PLATFORM_MISSING", message });
  }
  const unique = new Map<string, Child>();
  for (const [index, child] of children.entries()) {
    if (!unique.has(child.digest))
      unique.set(child.digest, { ...child, kind: index === 0 ? "config" : "layer" });
  }
  return [...unique.values()];
}

export function kindOf(mediaType: string): ImageObjectKind {
  if (!isManifestMediaType(mediaType)) return "layer";
  return mediaType.includes("index") || mediaType.includes("manifest.list") ? "index" : "manifest";
}

function parse(parent: Child, bytes: Buffer): readonly Descriptor[] {
  try {
    const parsed = parseManifest(bytes);
    if (parsed !== undefined) return parsed.children;
  } catch (error) {
    throw new PullError({
      code: "PULL_MANIFEST_INVALID",
      message: `${parent.digest}: ${errorMessage(error)}`,
      cause: error,
    });
  }
  throw new PullError({ code: "PULL_MANIFEST_INVALID", message: `${parent.digest} is no ${parent.kind}` });
}

// The structure is validated when this runs; only the platforms are still unknown.
function platformsOf(bytes: Buffer): readonly (Partial<Platform> | undefined)[] {
  const document = JSON.parse(bytes.toString("utf8")) as {
    readonly manifests: readonly { readonly platform?: Partial<Platform> }[];
  };
  return document.manifests.map((each) => each.platform);
}

// A manifest without a platform fits every node. arm64 without a variant is v8.
function matches(offered: Partial<Platform> | undefined, wanted: Platform): boolean {
  if (offered === undefined) return true;
  return (
    offered.os === wanted.os &&
    offered.architecture === wanted.architecture &&
    variantOf(offered) === variantOf(wanted)
  );
}

function variantOf(platform: Partial<Platform>): string {
  return platform.variant ?? (platform.architecture === "arm64" ? "v8" : "");
}
