// SPDX-License-Identifier: Apache-2.0
import { read } from "node:fs";
import { promisify } from "node:util";
import { createSemaphore, type Semaphore } from "#async";
import { hasCode } from "#errors";
import { type Digest, type ImageReference, MAX_MANIFEST_BYTES, parseImageReference } from "#oci";
import type { WritableContentStore } from "#store";
import type { Platform } from "../image-maker/index.ts";
import type { Credentials } from "./authorize.ts";
import { PullError } from "./errors.ts";
import { fetchContent } from "./fetch-content.ts";
import { loadHosts, type RegistryHost } from "./load-hosts.ts";
import type { Part, PulledObject, PullReport, Refusal } from "./report.ts";
import { describe, resolveReference } from "./resolve-reference.ts";
import { type Child, kindOf, selectChildren } from "./select-children.ts";
import { type Address, createTransport } from "./send-request.ts";

export interface PullClientOptions {
  /** containerd's `config_path`, usually /etc/containerd/certs.d. */
  readonly hostsDirectory: string;
  readonly store: WritableContentStore;
  /** Default linux/amd64. */
  readonly platform?: Platform;
  /** Where a name leads on this node: its resolver and its routes in one. */
  readonly dial?: (address: Address) => Address;
  /** PEM texts of authorities the node trusts. Default: the system's. */
  readonly authorities?: readonly string[];
  /** Source address of all connections. */
  readonly localAddress?: string;
  /** Presented to the registry itself when it asks; never to mirrors. */
  readonly credentials?: Credentials;
  /** Objects of one image fetched at a time; default 3, as CRI's `max_concurrent_downloads`. */
  readonly concurrentDownloads?: number;
  /** A pull that gets no byte for so long fails; default 300000, as CRI's `image_pull_progress_timeout`. */
  readonly progressTimeoutMs?: number;
  /** Called for each object when it is in the store. */
  readonly onObject?: (object: PulledObject) => void;
}

/** Disposing closes its connections. */
interface PullClient extends Disposable {
  /**
   * Pulls an image into the store and names it there as CRI does.
   *
   * @param reference `registry/repository:tag` or `registry/repository@digest`
   * @throws PullError; OCIError OCI_REFERENCE_INVALID
   */
  pull(reference: string, options: { readonly signal: AbortSignal }): Promise<PullReport>;
}

// index -> manifest -> layers, and one level to spare for nested indexes.
const MAX_DEPTH = 3;

export function createPullClient(options: PullClientOptions): PullClient {
  const transport = createTransport(options);
  return {
    async pull(text, { signal }) {
      const startedMs = performance.now();
      const reference = parseImageReference(text);
      using progress = watchProgress(options.progressTimeoutMs ?? 300_000);
      const pulling: Pulling = {
        ...options,
        transport,
        authorities: options.authorities ?? [],
        platform: options.platform ?? { os: "linux", architecture: "amd64" },
        reference,
        hosts: await loadHosts(options.hostsDirectory, reference.registry, { signal }),
        places: createSemaphore(options.concurrentDownloads ?? 3),
        signal: AbortSignal.any([signal, progress.signal]),
        onProgress: progress.touch,
        objects: [],
      };
      const resolved = await resolve(pulling);
      await pullTree({ ...resolved, kind: kindOf(resolved.mediaType) }, pulling, {
        signal: pulling.signal,
        depth: 0,
      });
      await nameImage(resolved.digest, pulling);
      return {
        reference: text,
        digest: resolved.digest,
        resolvedBy: resolved.host.origin,
        objects: pulling.objects,
        durationMs: performance.now() - startedMs,
      };
    },
    [Symbol.dispose]() {
      transport[Symbol.dispose]();
    },
  };
}

/** One pull on its way. */
interface Pulling extends PullClientOptions {
  readonly transport: ReturnType<typeof createTransport>;
  readonly authorities: readonly string[];
  readonly platform: Platform;
  readonly reference: ImageReference;
  readonly hosts: readonly RegistryHost[];
  readonly places: Semaphore;
  readonly signal: AbortSignal;
  readonly onProgress: () => void;
  readonly objects: PulledObject[];
}

function watchProgress(
  timeoutMs: number,
): Disposable & { readonly signal: AbortSignal; readonly touch: () => void } {
  const stalled = new AbortController();
  const timer = setTimeout(() => {
    const message = `the pull made no progress for ${timeoutMs} ms`;
    stalled.abort(new PullError({ code: "PULL_STALLED", message }));
  }, timeoutMs);
  return {
    signal: stalled.signal,
    touch: () => timer.refresh(),
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}

async function resolve(pulling: Pulling): ReturnType<typeof resolveReference> {
  const resolved = await resolveReference(pulling.reference, { ...pulling, onRefusal: pulling.onProgress });
  if (kindOf(resolved.mediaType) !== "layer") return resolved;
  throw new PullError({
    code: "PULL_MANIFEST_INVALID",
    message: `${resolved.host.origin} says that ${describe(pulling.reference)} is ${resolved.mediaType}`,
  });
}

// Parents before children; siblings in parallel; the first failure stops the siblings and is the one reported.
async function pullTree(
  object: Child,
  pulling: Pulling,
  { signal, depth }: { readonly signal: AbortSignal; readonly depth: number },
): Promise<void> {
  const isParent = object.kind === "index" || object.kind === "manifest";
  if (isParent && (depth > MAX_DEPTH || object.sizeBytes > MAX_MANIFEST_BYTES)) {
    const reason = depth > MAX_DEPTH ? "is nested too deeply" : `has ${object.sizeBytes} bytes`;
    throw new PullError({
      code: "PULL_MANIFEST_INVALID",
      message: `${object.kind} ${object.digest} ${reason}`,
    });
  }
  const bytes = await pullObject(object, pulling, signal);
  if (!isParent) return;
  const children = selectChildren(object, bytes, pulling.platform);
  const failure = new AbortController();
  const either = AbortSignal.any([signal, failure.signal]);
  await Promise.all(
    children.map((child) =>
      pullTree(child, pulling, { signal: either, depth: depth + 1 }).catch((error: unknown) =>
        failure.abort(error),
      ),
    ),
  );
  failure.signal.throwIfAborted();
}

/** Fetches one object unless the store has it. @returns the bytes of an index or manifest, else an empty buffer */
async function pullObject(object: Child, pulling: Pulling, signal: AbortSignal): Promise<Buffer> {
  using _place = await pulling.places.acquire({ signal });
  const startedMs = performance.now();
  const { store, reference } = pulling;
  const parts: Part[] = [];
  const refusals: Refusal[] = [];
  const kept: Buffer[] = [];
  const isParent = object.kind === "index" || object.kind === "manifest";
  if ((await store.stat(object.digest, { signal })) === undefined) {
    const chunks = fetchContent(object, {
      ...pulling,
      ...reference,
      signal,
      onRefusal: (refusal) => refusals.push(refusal),
      onBytes(part) {
        pulling.onProgress();
        if (parts.at(-1)?.offset === part.offset) parts.pop();
        parts.push(part);
      },
    });
    await put(object.digest, isParent ? keeping(chunks, kept) : chunks, { ...pulling, signal });
  } else if (isParent) kept.push(await readStored(object.digest, { store, signal }));
  const pulled = { ...object, parts, refusals, durationMs: performance.now() - startedMs };
  pulling.objects.push(pulled);
  pulling.onObject?.(pulled);
  return Buffer.concat(kept);
}

// At most MAX_MANIFEST_BYTES: fetchContent ends what is longer than its descriptor says.
async function* keeping(chunks: AsyncIterable<Buffer>, kept: Buffer[]): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    kept.push(chunk);
    yield chunk;
  }
}

async function put(digest: Digest, chunks: AsyncIterable<Buffer>, pulling: Pulling): Promise<void> {
  const { registry, repository } = pulling.reference;
  try {
    await pulling.store.put(digest, chunks, { signal: pulling.signal, origin: { registry, repository } });
  } catch (error) {
    if (!hasCode(error, "STORE_DIGEST_MISMATCH")) throw error;
    throw new PullError({
      code: "PULL_DIGEST_MISMATCH",
      message: `${digest} did not arrive as such`,
      cause: error,
    });
  }
}

async function readStored(
  digest: Digest,
  options: { readonly store: WritableContentStore; readonly signal: AbortSignal },
): Promise<Buffer> {
  await using content = await options.store.open(digest, { signal: options.signal });
  if (content === undefined) {
    throw new PullError({ code: "PULL_NOT_FOUND", message: `${digest} left the store during the pull` });
  }
  if (content.kind === "memory") return Buffer.from(content.bytes);
  const { buffer, bytesRead } = await promisify(read)(
    content.fd,
    Buffer.alloc(content.sizeBytes),
    0,
    content.sizeBytes,
    0,
  );
  return buffer.subarray(0, bytesRead);
}

async function nameImage(digest: Digest, pulling: Pulling): Promise<void> {
  const { store, reference, signal } = pulling;
  const { registry, repository, tag } = reference;
  if (tag !== undefined) await store.tag(`${registry}/${repository}:${tag}`, digest, { signal });
  await store.tag(`${registry}/${repository}@${digest}`, digest, { signal });
}
