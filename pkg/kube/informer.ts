// SPDX-License-Identifier: Apache-2.0
import { createBackoff, createTaskGroup, sleep } from "#async";
import { hasCode } from "#errors";
import type { Logger } from "#log";
import type { KubeClient, ListQuery } from "./client.ts";
import { type KubeMetadata, type KubeObject, keyOf, type Resource } from "./resource.ts";
import type { WatchEvent } from "./watch-stream.ts";

/** One change, with the state before it where there was one. `deleted` carries the last state that was seen. */
export type InformerEvent<S> =
  | { readonly type: "added"; readonly key: string; readonly object: S }
  | { readonly type: "modified"; readonly key: string; readonly object: S; readonly previous: S }
  | { readonly type: "deleted"; readonly key: string; readonly object: S };

/** A local copy of all objects of one resource, kept up to date. */
export interface Informer<S> extends AsyncDisposable {
  /** Resolves after the first complete list; rejects when the signal aborts first. */
  synced(options: { readonly signal: AbortSignal }): Promise<void>;
  readonly hasSynced: boolean;
  /** By `namespace/name`, or `name` for cluster-scoped objects. */
  get(key: string): S | undefined;
  values(): IterableIterator<S>;
  readonly size: number;
  /** When the server was last heard of: list, event or bookmark; milliseconds since 1970, 0 for never. */
  readonly lastHeardMs: number;
  /** Calls the handler for every object there is and for every later change, one after the other. */
  subscribe(handler: (event: InformerEvent<S>) => void): Disposable;
}

export interface InformerOptions<T extends KubeObject, S> extends ListQuery {
  readonly resource: Resource<T>;
  /** What is kept of an object; undefined drops it. Keep little: there may be thousands. */
  readonly trim: (object: T) => S | undefined;
  /** A new full list after this time; default 10 h, as controller-runtime. */
  readonly relistMs?: number;
  /** The server ends a watch after this time, spread over up to twice of it; default 300 s. */
  readonly watchSeconds?: number;
  /** A watch that is silent for longer is dead; default 180 s. */
  readonly idleTimeoutMs?: number;
  /** Between tries after failures; default 1 s growing to 30 s. */
  readonly backoff?: { readonly initialMs: number; readonly maxMs: number };
  /** Objects beyond this number make a list fail; default 100,000. */
  readonly maxObjects?: number;
}

export interface InformerDeps {
  readonly client: KubeClient;
  readonly logger: Logger;
  /** Milliseconds since 1970; default Date.now. */
  readonly now?: () => number;
  /** In [0, 1); default Math.random. */
  readonly random?: () => number;
}

interface Entry<S> {
  readonly version: string;
  readonly object: S;
}

const DEFAULT_RELIST_MS = 10 * 3_600_000;
/** A watch that ended sooner counts as a failure, so that a server which ends each at once is not stormed. */
const SHORT_WATCH_MS = 1000;
/** A watch that breaks off later was a good one: whatever cut it is no reason to wait longer each time. */
const GOOD_WATCH_MS = 10_000;
/** So many failures in a row lead to a new list, for the case that something on the way hides a 410. */
const FAILURES_BEFORE_RELIST = 5;

/**
 * List, then watch from the list's version; again and again until disposed. No error ends it: a silent end or a
 * dead connection resumes from the last version seen (bookmarks keep that recent), 410 lists anew, everything
 * else waits with jitter first. After a new list, differences become events, so that nothing is missed.
 */
export function createInformer<T extends KubeObject, S>(
  deps: InformerDeps,
  options: InformerOptions<T, S>,
): Informer<S> {
  const { client, logger } = deps;
  const now = deps.now ?? Date.now;
  const random = deps.random ?? Math.random;
  const { initialMs, maxMs } = options.backoff ?? { initialMs: 1000, maxMs: 30_000 };
  const backoff = createBackoff({ initialMs, maxMs, random });
  const entries = new Map<string, Entry<S>>();
  const handlers = new Set<(event: InformerEvent<S>) => void>();
  const firstList = Promise.withResolvers<void>();
  let hasSynced = false;
  let lastHeardMs = 0;
  const tasks = createTaskGroup();
  tasks.run(`informer of ${options.resource.plural}`, run);

  async function run(signal: AbortSignal): Promise<void> {
    let version: string | undefined;
    let listedAtMs = 0;
    let failures = 0;
    while (!signal.aborted) {
      const startedMs = now();
      try {
        if (version === undefined || startedMs - listedAtMs > (options.relistMs ?? DEFAULT_RELIST_MS)) {
          version = await relist(signal);
          listedAtMs = now();
        }
        for await (const event of watch(version, signal)) {
          version = apply(event) ?? version;
          backoff.reset();
          failures = 0;
        }
        if (now() - startedMs < SHORT_WATCH_MS) await sleep(backoff.next(), { signal });
      } catch (error) {
        if (signal.aborted) return;
        if (now() - startedMs >= GOOD_WATCH_MS) {
          backoff.reset();
          failures = 0;
        }
        if (mustRelist(error) || ++failures % FAILURES_BEFORE_RELIST === 0) version = undefined;
        logger.warn("watching resources failed, will try again", {
          resource: options.resource.plural,
          err: error,
        });
        await sleep(backoff.next(), { signal });
      }
    }
  }

  function watch(resourceVersion: string, signal: AbortSignal): AsyncIterable<WatchEvent<T>> {
    const { namespace, labelSelector, fieldSelector, idleTimeoutMs } = options;
    return client.watch(
      options.resource,
      {
        resourceVersion,
        timeoutSeconds: Math.ceil((options.watchSeconds ?? 300) * (1 + random())),
        ...(namespace !== undefined && { namespace }),
        ...(labelSelector !== undefined && { labelSelector }),
        ...(fieldSelector !== undefined && { fieldSelector }),
        ...(idleTimeoutMs !== undefined && { idleTimeoutMs }),
      },
      { signal },
    );
  }

  /** Replaces the copy by a new list and reports the differences. */
  async function relist(signal: AbortSignal): Promise<string> {
    const fresh = new Map<string, Entry<S>>();
    let version = "";
    for await (const page of client.pages(options.resource, options, { signal })) {
      version = page.resourceVersion;
      for (const object of page.items) keep(fresh, object);
      if (fresh.size > (options.maxObjects ?? 100_000))
        throw new Error(`more than ${options.maxObjects ?? 100_000} objects`);
    }
    lastHeardMs = now();
    for (const key of [...entries.keys()]) if (!fresh.has(key)) set(key, undefined);
    for (const [key, entry] of fresh) if (entries.get(key)?.version !== entry.version) set(key, entry);
    if (!hasSynced) {
      hasSynced = true;
      firstList.resolve();
    }
    return version;
  }

  function keep(into: Map<string, Entry<S>>, object: T): void {
    const kept = options.trim(object);
    if (kept !== undefined)
      into.set(keyOf(object.metadata), { version: versionOf(object.metadata), object: kept });
  }

  /** Applies one event; the version to resume from after it. */
  function apply(event: WatchEvent<T>): string | undefined {
    lastHeardMs = now();
    const { metadata } = event.object;
    if (event.type === "BOOKMARK") return metadata.resourceVersion;
    const key = keyOf(metadata);
    if (event.type === "DELETED") {
      const last = entries.has(key) ? options.trim(event.object) : undefined;
      if (last !== undefined) entries.set(key, { version: versionOf(metadata), object: last });
      set(key, undefined);
    } else {
      const kept = options.trim(event.object);
      set(key, kept === undefined ? undefined : { version: versionOf(metadata), object: kept });
    }
    return metadata.resourceVersion;
  }

  function set(key: string, entry: Entry<S> | undefined): void {
    const previous = entries.get(key);
    if (entry === undefined) {
      if (previous === undefined) return;
      entries.delete(key);
      return emit({ type: "deleted", key, object: previous.object });
    }
    entries.set(key, entry);
    if (previous === undefined) emit({ type: "added", key, object: entry.object });
    else emit({ type: "modified", key, object: entry.object, previous: previous.object });
  }

  function emit(event: InformerEvent<S>): void {
    for (const handler of [...handlers]) call(handler, event);
  }

  function call(handler: (event: InformerEvent<S>) => void, event: InformerEvent<S>): void {
    try {
      handler(event);
    } catch (error) {
      logger.error("a handler of resource events threw", {
        resource: options.resource.plural,
        key: event.key,
        err: error,
      });
    }
  }

  return {
    async synced({ signal }) {
      signal.throwIfAborted();
      const aborted = Promise.withResolvers<never>();
      const onAbort = (): void => aborted.reject(signal.reason as Error);
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        await Promise.race([firstList.promise, aborted.promise]);
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
    get hasSynced() {
      return hasSynced;
    },
    get: (key) => entries.get(key)?.object,
    *values() {
      for (const entry of entries.values()) yield entry.object;
    },
    get size() {
      return entries.size;
    },
    get lastHeardMs() {
      return lastHeardMs;
    },
    subscribe(handler) {
      for (const [key, { object }] of [...entries]) call(handler, { type: "added", key, object });
      handlers.add(handler);
      return { [Symbol.dispose]: () => void handlers.delete(handler) };
    },
    [Symbol.asyncDispose]: () => tasks[Symbol.asyncDispose](),
  };
}

/** A version that is gone, and a stream that made no sense: the copy may be wrong. */
function mustRelist(error: unknown): boolean {
  return (
    hasCode(error, "KUBE_GONE") || hasCode(error, "KUBE_RESPONSE_INVALID") || hasCode(error, "KUBE_INVALID")
  );
}

const versionOf = (metadata: KubeMetadata): string => metadata.resourceVersion ?? "";
