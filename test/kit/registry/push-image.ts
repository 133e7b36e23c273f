// SPDX-License-Identifier: Apache-2.0

import { once } from "node:events";
import { createReadStream } from "node:fs";
import { type ClientRequest, type IncomingMessage, request as openRequest } from "node:http";
import { pipeline } from "node:stream/promises";
import type { ImageLayout, ImageObject } from "../image-maker/index.ts";
import { RegistryError } from "./errors.ts";

/** Pushes all objects of a layout to `origin`, children first, and points `tag` at its root. */
export async function pushImage(
  layout: ImageLayout,
  target: {
    readonly origin: string;
    readonly repository: string;
    readonly tag: string;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const base = `${target.origin}/v2/${target.repository}`;
  const send: Send = (method, url, content) =>
    exchange({ method, url: new URL(url, target.origin), content, signal: target.signal });
  for (const object of layout.objects) {
    if (object.kind === "config" || object.kind === "layer") await pushBlob(layout, object, { base, send });
    else await pushManifest(layout, object, { url: `${base}/manifests/${object.digest}`, send });
  }
  await pushManifest(layout, layout.root, { url: `${base}/manifests/${target.tag}`, send });
}

interface Content {
  readonly path: string;
  readonly mediaType: string;
  readonly sizeBytes: number;
}

type Send = (method: string, url: string, content?: Content) => Promise<IncomingMessage>;

async function pushBlob(
  layout: ImageLayout,
  object: ImageObject,
  to: { readonly base: string; readonly send: Send },
): Promise<void> {
  const present = await to.send("HEAD", `${to.base}/blobs/${object.digest}`);
  if (present.statusCode === 200) return;
  const started = accepted(await to.send("POST", `${to.base}/blobs/uploads/`), 202);
  const location = new URL(started.headers.location ?? "", to.base);
  location.searchParams.set("digest", object.digest);
  const content = contentOf(layout, { ...object, mediaType: "application/octet-stream" });
  accepted(await to.send("PUT", location.href, content), 201);
}

async function pushManifest(
  layout: ImageLayout,
  object: ImageObject,
  to: { readonly url: string; readonly send: Send },
): Promise<void> {
  accepted(await to.send("PUT", to.url, contentOf(layout, object)), 201);
}

function contentOf(layout: ImageLayout, object: ImageObject): Content {
  return { path: layout.blobPath(object.digest), mediaType: object.mediaType, sizeBytes: object.sizeBytes };
}

function accepted(response: IncomingMessage, status: number): IncomingMessage {
  if (response.statusCode === status) return response;
  const { method, path } = (response as IncomingMessage & { readonly req: ClientRequest }).req;
  throw new RegistryError({
    code: "REGISTRY_PUSH_REFUSED",
    message: `${method} ${path} was answered with ${response.statusCode} instead of ${status}`,
  });
}

async function exchange(options: {
  readonly method: string;
  readonly url: URL;
  readonly content: Content | undefined;
  readonly signal: AbortSignal;
}): Promise<IncomingMessage> {
  const { method, url, content, signal } = options;
  const headers = {
    "content-type": content?.mediaType ?? "application/octet-stream",
    "content-length": content?.sizeBytes ?? 0,
  };
  const request = openRequest(url, { method, headers, signal });
  const answered = once(request, "response") as Promise<[IncomingMessage]>;
  const body =
    content === undefined || content.sizeBytes === 0
      ? request.end()
      : pipeline(createReadStream(content.path, { highWaterMark: 512 * 1024 }), request);
  const [[response]] = await Promise.all([answered, body]);
  response.resume();
  await once(response, "end");
  return response;
}
