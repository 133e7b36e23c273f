// SPDX-License-Identifier: Apache-2.0
import { createHash, randomUUID } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import {
  childrenOf,
  type Digest,
  digestHex,
  isDigest,
  isManifestMediaType,
  MAX_MANIFEST_BYTES,
  sha256Digest,
} from "#oci";
import type { Backend } from "./backend.ts";
import { listen } from "./listen.ts";

interface Manifest {
  readonly mediaType: string;
  readonly bytes: Buffer;
}

interface Repository {
  readonly blobs: Map<Digest, number>;
  readonly manifests: Map<Digest, Manifest>;
  readonly tags: Map<string, Digest>;
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly repository: string;
  readonly reference: string;
}

// The first path component after /v2/ up to the last section word; names are checked by their length only, as
// this registry serves tests.
const ROUTE =
  /^\/v2\/(?<repository>[a-z0-9][a-z0-9._/-]{0,254})\/(?<section>manifests|blobs\/uploads|blobs|tags)\/(?<reference>[^/]*)$/;

/** A registry in this process: push and pull of the OCI distribution specification, blobs as files. */
export async function startNodeRegistry(options: {
  readonly directory: string;
  readonly signal: AbortSignal;
}): Promise<Backend> {
  options.signal.throwIfAborted();
  const files = join(options.directory, "blobs");
  await mkdir(files, { recursive: true });
  const handler = createHandler(files);
  const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    handler(request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy();
      else fail(response, 500, "UNKNOWN", String(error));
    });
  });
  const listening = await listen(server, { address: "127.0.0.1", port: 0 });
  return {
    origin: `http://127.0.0.1:${listening.port}`,
    name: "node",
    [Symbol.asyncDispose]: () => listening[Symbol.asyncDispose](),
  };
}

function createHandler(files: string): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  const repositories = new Map<string, Repository>();
  const uploads = new Set<string>();
  const blobFile = (digest: Digest): string => join(files, digestHex(digest));
  const uploadFile = (id: string): string => join(files, `upload-${id}`);

  function repositoryOf(name: string): Repository {
    const known = repositories.get(name);
    if (known !== undefined) return known;
    const added: Repository = { blobs: new Map(), manifests: new Map(), tags: new Map() };
    repositories.set(name, added);
    return added;
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://registry");
    if (url.pathname === "/v2/") return json(response, 200, {});
    const route = ROUTE.exec(url.pathname)?.groups;
    if (route === undefined) return fail(response, 404, "NAME_UNKNOWN", "no such resource");
    const exchange = {
      request,
      response,
      url,
      repository: route["repository"] as string,
      reference: route["reference"] as string,
    };
    const read = request.method === "GET" || request.method === "HEAD";
    if (route["section"] === "manifests" && read) return sendManifest(exchange);
    if (route["section"] === "manifests" && request.method === "PUT") return putManifest(exchange);
    if (route["section"] === "blobs" && read) return sendBlob(exchange);
    if (route["section"] === "blobs/uploads") return upload(exchange);
    if (route["section"] === "tags" && read) return listTags(exchange);
    return fail(response, 405, "UNSUPPORTED", `${request.method} is not supported here`);
  }

  function sendManifest({ request, response, repository, reference }: Exchange): void {
    const { tags, manifests } = repositoryOf(repository);
    const digest = isDigest(reference) ? reference : tags.get(reference);
    const manifest = digest === undefined ? undefined : manifests.get(digest);
    if (digest === undefined || manifest === undefined)
      return fail(response, 404, "MANIFEST_UNKNOWN", "manifest unknown");
    response.writeHead(200, {
      "content-type": manifest.mediaType,
      "content-length": manifest.bytes.length,
      "docker-content-digest": digest,
    });
    response.end(request.method === "HEAD" ? undefined : manifest.bytes);
  }

  async function putManifest({ request, response, repository, reference }: Exchange): Promise<void> {
    const bytes = await readBody(request, MAX_MANIFEST_BYTES);
    if (bytes === undefined) return fail(response, 413, "SIZE_INVALID", "the manifest is too large");
    const mediaType = request.headers["content-type"] ?? "";
    const digest = sha256Digest(bytes);
    if (!isManifestMediaType(mediaType)) return fail(response, 400, "MANIFEST_INVALID", "unknown media type");
    if (isDigest(reference) && reference !== digest)
      return fail(response, 400, "DIGEST_INVALID", "digest does not match");
    const target = repositoryOf(repository);
    let children: readonly { readonly digest: Digest }[];
    try {
      children = childrenOf(bytes);
    } catch (error) {
      return fail(response, 400, "MANIFEST_INVALID", String(error));
    }
    const missing = children.find(
      (child) => !target.blobs.has(child.digest) && !target.manifests.has(child.digest),
    );
    if (missing !== undefined)
      return fail(response, 400, "MANIFEST_BLOB_UNKNOWN", `${missing.digest} was not pushed`);
    target.manifests.set(digest, { mediaType, bytes });
    if (!isDigest(reference)) target.tags.set(reference, digest);
    created(response, `/v2/${repository}/manifests/${digest}`, digest);
  }

  async function sendBlob({ request, response, repository, reference }: Exchange): Promise<void> {
    const sizeBytes = isDigest(reference) ? repositoryOf(repository).blobs.get(reference) : undefined;
    if (sizeBytes === undefined) return fail(response, 404, "BLOB_UNKNOWN", "blob unknown");
    const range = parseRange(request.headers.range, sizeBytes);
    if (range === "unsatisfiable") return fail(response, 416, "RANGE_INVALID", "range not satisfiable");
    const { first, last } = range ?? { first: 0, last: sizeBytes - 1 };
    response.writeHead(range === undefined ? 200 : 206, {
      "content-type": "application/octet-stream",
      "content-length": last - first + 1,
      "docker-content-digest": reference,
      "accept-ranges": "bytes",
      ...(range === undefined ? {} : { "content-range": `bytes ${first}-${last}/${sizeBytes}` }),
    });
    if (request.method === "HEAD" || sizeBytes === 0) {
      response.end();
      return;
    }
    const file = createReadStream(blobFile(reference as Digest), {
      start: first,
      end: last,
      highWaterMark: 512 * 1024,
    });
    await pipeline(file, response).catch(() => {}); // the client went away
  }

  async function upload(exchange: Exchange): Promise<void> {
    const { request, response, repository } = exchange;
    const id = exchange.reference;
    if (request.method === "POST" && id === "") {
      const fresh = randomUUID();
      uploads.add(fresh);
      response.writeHead(202, {
        location: `/v2/${repository}/blobs/uploads/${fresh}`,
        range: "0-0",
        "content-length": 0,
      });
      response.end();
      return;
    }
    if (!uploads.has(id)) return fail(response, 404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
    if (request.method === "PATCH") return appendUpload(exchange, id);
    if (request.method === "PUT") return finishUpload(exchange, id);
    return fail(response, 405, "UNSUPPORTED", `${request.method} is not supported here`);
  }

  async function appendUpload({ request, response, repository }: Exchange, id: string): Promise<void> {
    await pipeline(request, createWriteStream(uploadFile(id), { flags: "a" }));
    const { size } = await stat(uploadFile(id));
    const location = `/v2/${repository}/blobs/uploads/${id}`;
    response.writeHead(202, { location, range: `0-${Math.max(0, size - 1)}`, "content-length": 0 });
    response.end();
  }

  async function finishUpload({ request, response, url, repository }: Exchange, id: string): Promise<void> {
    await pipeline(request, createWriteStream(uploadFile(id), { flags: "a" }));
    uploads.delete(id);
    const expected = url.searchParams.get("digest") ?? "";
    const { digest, sizeBytes } = await hashFile(uploadFile(id));
    if (expected !== digest) {
      await rm(uploadFile(id));
      return fail(response, 400, "DIGEST_INVALID", `the bytes have ${digest}`);
    }
    await rename(uploadFile(id), blobFile(digest));
    repositoryOf(repository).blobs.set(digest, sizeBytes);
    created(response, `/v2/${repository}/blobs/${digest}`, digest);
  }

  function listTags({ response, repository, reference }: Exchange): void {
    const known = repositories.get(repository);
    if (known === undefined || reference !== "list")
      return fail(response, 404, "NAME_UNKNOWN", "repository unknown");
    json(response, 200, { name: repository, tags: [...known.tags.keys()].sort() });
  }

  return handle;
}

async function readBody(request: IncomingMessage, limitBytes: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes <= limitBytes) chunks.push(chunk);
  }
  return sizeBytes > limitBytes ? undefined : Buffer.concat(chunks);
}

async function hashFile(path: string): Promise<{ readonly digest: Digest; readonly sizeBytes: number }> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  const count = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      sizeBytes += chunk.length;
      done();
    },
  });
  await pipeline(createReadStream(path, { highWaterMark: 512 * 1024 }), count);
  return { digest: `sha256:${hash.digest("hex")}` as Digest, sizeBytes };
}

function parseRange(
  header: string | undefined,
  sizeBytes: number,
): { readonly first: number; readonly last: number } | "unsatisfiable" | undefined {
  const match = /^bytes=([0-9]*)-([0-9]*)$/.exec(header ?? "");
  if (match === null || match[0] === "bytes=-") return undefined;
  const [, from = "", to = ""] = match;
  const first = from === "" ? Math.max(0, sizeBytes - Number(to)) : Number(from);
  const last = from === "" || to === "" ? sizeBytes - 1 : Math.min(Number(to), sizeBytes - 1);
  return first >= sizeBytes || first > last ? "unsatisfiable" : { first, last };
}

function created(response: ServerResponse, location: string, digest: Digest): void {
  response.writeHead(201, { location, "docker-content-digest": digest, "content-length": 0 });
  response.end();
}

function json(response: ServerResponse, status: number, document: object): void {
  const body = Buffer.from(JSON.stringify(document));
  response.writeHead(status, { "content-type": "application/json", "content-length": body.length });
  response.end(body);
}

function fail(response: ServerResponse, status: number, code: string, message: string): void {
  json(response, status, { errors: [{ code, message }] });
}
