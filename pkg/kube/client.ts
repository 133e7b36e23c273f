// SPDX-License-Identifier: Apache-2.0
import { hasCode } from "#errors";
import { KubeError } from "./errors.ts";
import type { KubeConnection } from "./kubeconfig.ts";
import { apiVersionOf, type KubeObject, type ObjectName, pathOf, type Resource } from "./resource.ts";
import { createTransport, type TransportOptions } from "./transport.ts";
import { readWatch, type WatchEvent } from "./watch-stream.ts";

interface Cancel {
  readonly signal: AbortSignal;
}

export interface ListQuery {
  /** Absent: all namespaces. */
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** Objects per request; default 500. */
  readonly pageSize?: number;
}

export interface ObjectPage<T extends KubeObject> {
  readonly items: readonly T[];
  /** Of the whole list: every page has the same. A watch continues from it. */
  readonly resourceVersion: string;
}

export interface WatchQuery extends Omit<ListQuery, "pageSize"> {
  readonly resourceVersion: string;
  /** The server ends the watch after this time; default 300 s. */
  readonly timeoutSeconds?: number;
  /** A silence longer than this ends it with KUBE_TIMEOUT; default 180 s: bookmarks come about each minute. */
  readonly idleTimeoutMs?: number;
}

export interface DeletePreconditions {
  readonly uid?: string;
  readonly resourceVersion?: string;
}

/**
 * Reads and writes objects of any resource. All methods throw KubeError; `get` and patches of what does not exist
 * throw KUBE_NOT_FOUND.
 */
export interface KubeClient extends AsyncDisposable {
  get<T extends KubeObject>(resource: Resource<T>, name: ObjectName, options: Cancel): Promise<T>;
  /** Like `get`, with undefined for what does not exist. */
  find<T extends KubeObject>(
    resource: Resource<T>,
    name: ObjectName,
    options: Cancel,
  ): Promise<T | undefined>;
  /** All objects, at most 100,000. */
  list<T extends KubeObject>(
    resource: Resource<T>,
    query: ListQuery,
    options: Cancel,
  ): Promise<ObjectPage<T>>;
  /** The same page by page: what a caller does not keep is gone before the next page comes. */
  pages<T extends KubeObject>(
    resource: Resource<T>,
    query: ListQuery,
    options: Cancel,
  ): AsyncIterable<ObjectPage<T>>;
  /** Changes after a version, and bookmarks. Ends when the server ends it: watch again from the last version. */
  watch<T extends KubeObject>(
    resource: Resource<T>,
    query: WatchQuery,
    options: Cancel,
  ): AsyncIterable<WatchEvent<T>>;
  create<T extends KubeObject>(resource: Resource<T>, object: T, options: Cancel): Promise<T>;
  /** Replaces an object; KUBE_CONFLICT when its resourceVersion is not the current one. */
  replace<T extends KubeObject>(resource: Resource<T>, object: T, options: Cancel): Promise<T>;
  /** RFC 7386. A `metadata.resourceVersion` in the patch is an optimistic lock (KUBE_CONFLICT). */
  mergePatch<T extends KubeObject>(
    resource: Resource<T>,
    name: ObjectName,
    patch: object,
    options: Cancel,
  ): Promise<T>;
  /** A merge patch of the status subresource; the patch starts at the object, `{status: {...}}`. */
  mergePatchStatus<T extends KubeObject>(
    resource: Resource<T>,
    name: ObjectName,
    patch: object,
    options: Cancel,
  ): Promise<T>;
  /** RFC 6902. */
  jsonPatch<T extends KubeObject>(
    resource: Resource<T>,
    name: ObjectName,
    patch: readonly object[],
    options: Cancel,
  ): Promise<T>;
  /** False when there was nothing to delete. True does not mean that it is gone: finalizers may hold it. */
  delete(
    resource: Resource,
    name: ObjectName,
    options: Cancel & { readonly preconditions?: DeletePreconditions },
  ): Promise<boolean>;
}

const DEFAULT_PAGE_SIZE = 500;
const MAX_LIST_OBJECTS = 100_000;
const DEFAULT_WATCH_SECONDS = 300;
const DEFAULT_IDLE_TIMEOUT_MS = 180_000;
const MERGE_PATCH = "application/merge-patch+json";
const JSON_PATCH = "application/json-patch+json";

/**
 * A client of one API server over node:https.
 *
 * It stays below what @kubernetes/client-node's generated clients do, for size and for their gaps: patches always
 * carry their media type, a watch ends with an error instead of silently, a token file is read again.
 */
export function createKubeClient(connection: KubeConnection, options: TransportOptions): KubeClient {
  const transport = createTransport(connection, options);

  async function object<T extends KubeObject>(
    request: Parameters<typeof transport.json>[0],
    cancel: Cancel,
  ): Promise<T> {
    const body = await transport.json(request, cancel);
    if (!isObject(body)) throw unexpected(`${request.method} ${request.path.split("?")[0]}`);
    return body as T;
  }

  async function get<T extends KubeObject>(
    resource: Resource<T>,
    name: ObjectName,
    cancel: Cancel,
  ): Promise<T> {
    return await object<T>({ method: "GET", path: pathOf(resource, name) }, cancel);
  }

  async function* pages<T extends KubeObject>(
    resource: Resource<T>,
    query: ListQuery,
    cancel: Cancel,
  ): AsyncGenerator<ObjectPage<T>> {
    const path = pathOf(resource, { namespace: query.namespace });
    let next = "";
    do {
      const parameters = selection(query);
      parameters.set("limit", String(query.pageSize ?? DEFAULT_PAGE_SIZE));
      if (next !== "") parameters.set("continue", next);
      const body = await transport.json({ method: "GET", path: `${path}?${parameters.toString()}` }, cancel);
      const page = parsePage<T>(body, resource, path);
      next = page.next;
      yield page;
    } while (next !== "");
  }

  function patch<T extends KubeObject>(
    path: string,
    contentType: string,
    body: object,
    cancel: Cancel,
  ): Promise<T> {
    return object<T>({ method: "PATCH", path, body, contentType }, cancel);
  }

  return {
    get,
    async find(resource, name, cancel) {
      try {
        return await get(resource, name, cancel);
      } catch (error) {
        if (hasCode(error, "KUBE_NOT_FOUND")) return undefined;
        throw error;
      }
    },
    pages,
    async list<T extends KubeObject>(resource: Resource<T>, query: ListQuery, cancel: Cancel) {
      const items: T[] = [];
      let resourceVersion = "";
      for await (const page of pages(resource, query, cancel)) {
        items.push(...page.items);
        resourceVersion = page.resourceVersion;
        if (items.length > MAX_LIST_OBJECTS) {
          throw unexpected(`LIST ${resource.plural}`, `more than ${MAX_LIST_OBJECTS} objects`);
        }
      }
      return { items, resourceVersion };
    },
    async *watch<T extends KubeObject>(resource: Resource<T>, query: WatchQuery, cancel: Cancel) {
      const path = pathOf(resource, { namespace: query.namespace });
      const parameters = selection(query);
      parameters.set("watch", "true");
      parameters.set("allowWatchBookmarks", "true");
      parameters.set("resourceVersion", query.resourceVersion);
      parameters.set("timeoutSeconds", String(query.timeoutSeconds ?? DEFAULT_WATCH_SECONDS));
      const response = await transport.stream(
        { method: "GET", path: `${path}?${parameters.toString()}` },
        cancel,
      );
      const idleTimeoutMs = query.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS;
      yield* readWatch<T>(response, `WATCH ${path}`, { ...cancel, idleTimeoutMs });
    },
    async create<T extends KubeObject>(resource: Resource<T>, body: T, cancel: Cancel) {
      const path = pathOf(resource, { namespace: body.metadata.namespace });
      return await object<T>({ method: "POST", path, body: { ...typeOf(resource), ...body } }, cancel);
    },
    async replace<T extends KubeObject>(resource: Resource<T>, body: T, cancel: Cancel) {
      const path = pathOf(resource, body.metadata);
      return await object<T>({ method: "PUT", path, body: { ...typeOf(resource), ...body } }, cancel);
    },
    mergePatch: (resource, name, body, cancel) => patch(pathOf(resource, name), MERGE_PATCH, body, cancel),
    mergePatchStatus: (resource, name, body, cancel) =>
      patch(pathOf(resource, { ...name, subresource: "status" }), MERGE_PATCH, body, cancel),
    jsonPatch: (resource, name, body, cancel) => patch(pathOf(resource, name), JSON_PATCH, body, cancel),
    async delete(resource, name, { signal, preconditions }) {
      const body = { apiVersion: "v1", kind: "DeleteOptions", ...(preconditions && { preconditions }) };
      try {
        await transport.json({ method: "DELETE", path: pathOf(resource, name), body }, { signal });
        return true;
      } catch (error) {
        if (hasCode(error, "KUBE_NOT_FOUND")) return false;
        throw error;
      }
    },
    [Symbol.asyncDispose]: () => transport[Symbol.asyncDispose](),
  };
}

/** True when trying again later may help: conflicts, throttling, an API server that is away. */
export function isTransient(error: unknown): boolean {
  return (
    error instanceof KubeError &&
    ["KUBE_CONFLICT", "KUBE_THROTTLED", "KUBE_UNAVAILABLE", "KUBE_TIMEOUT", "KUBE_GONE"].includes(error.code)
  );
}

function selection(query: Pick<ListQuery, "labelSelector" | "fieldSelector">): URLSearchParams {
  const parameters = new URLSearchParams();
  if (query.labelSelector) parameters.set("labelSelector", query.labelSelector);
  if (query.fieldSelector) parameters.set("fieldSelector", query.fieldSelector);
  return parameters;
}

function typeOf(resource: Resource): { apiVersion: string; kind: string } {
  return { apiVersion: apiVersionOf(resource), kind: resource.kind };
}

/** The items of a list of built-in resources come without apiVersion and kind. */
function parsePage<T extends KubeObject>(
  body: unknown,
  resource: Resource<T>,
  path: string,
): ObjectPage<T> & { readonly next: string } {
  const { items, metadata } = (body ?? {}) as {
    items?: unknown;
    metadata?: { resourceVersion?: unknown; continue?: unknown };
  };
  const valid = (Array.isArray(items) || items === null) && typeof metadata?.resourceVersion === "string";
  if (!valid || !(items ?? []).every(isObject)) throw unexpected(`GET ${path}`, "not a list of objects");
  return {
    items: ((items ?? []) as object[]).map((item) => ({ ...typeOf(resource), ...item }) as T),
    resourceVersion: metadata.resourceVersion as string,
    next: typeof metadata.continue === "string" ? metadata.continue : "",
  };
}

function isObject(value: unknown): value is KubeObject {
  if (typeof value !== "object" || value === null || !("metadata" in value)) return false;
  return typeof value.metadata === "object" && value.metadata !== null;
}

function unexpected(what: string, problem = "the answer is not an object"): KubeError {
  return new KubeError({ code: "KUBE_RESPONSE_INVALID", message: `${what}: ${problem}` });
}
