// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from "node:crypto";
import { apiVersionOf, type ServedResource } from "./resources.ts";
import { parseFieldSelector, parseLabelSelector } from "./selectors.ts";
import { badRequest, expired } from "./status.ts";
import type { ApiObject, Storage, StoredEvent } from "./storage.ts";

export interface Selection {
  readonly resource: ServedResource;
  readonly namespace?: string | undefined;
  readonly query: URLSearchParams;
}

export interface ObjectList {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly resourceVersion: string;
    readonly continue?: string;
    readonly remainingItemCount?: number;
  };
  readonly items: readonly ApiObject[];
}

export interface WatchSink {
  send(event: { readonly type: string; readonly object: unknown }): void;
  end(): void;
  readonly closed: AbortSignal;
}

export interface Reads {
  list(selection: Selection): ObjectList;
  /** Opens the stream and sends events until the client goes, or the requested time is over. */
  watch(selection: Selection, open: () => WatchSink): void;
  /** Pages that were begun can no longer be continued. */
  expirePages(): void;
}

const MAX_OPEN_PAGES = 100;

export function createReads(storage: Storage, options: { readonly bookmarkIntervalMs: number }): Reads {
  /** A paged list is a snapshot: the rest of it waits here for its token. */
  const pages = new Map<string, { rest: ApiObject[]; version: string }>();

  function list(selection: Selection): ObjectList {
    const { query, resource } = selection;
    const limit = numberOf(query, "limit");
    const token = query.get("continue");
    let rest: ApiObject[];
    let version = String(storage.version);
    if (token === null || token === "") {
      rest = storage.list(resource).filter(predicate(selection));
    } else {
      const page = pages.get(token);
      if (!page)
        throw expired("The provided continue parameter is too old to display a consistent list result.");
      ({ rest, version } = page);
    }
    const items = limit > 0 ? rest.slice(0, limit) : rest;
    const remaining = rest.slice(items.length);
    return {
      apiVersion: apiVersionOf(resource),
      kind: `${resource.kind}List`,
      metadata: {
        resourceVersion: version,
        ...(remaining.length > 0 && {
          continue: keepPage(remaining, version),
          remainingItemCount: remaining.length,
        }),
      },
      items: items.map((object) => listItem(resource, object)),
    };
  }

  function keepPage(rest: ApiObject[], version: string): string {
    const token = Buffer.from(JSON.stringify({ v: "meta.k8s.io/v1", id: randomUUID() })).toString(
      "base64url",
    );
    pages.set(token, { rest, version });
    const oldest = pages.keys().next().value;
    if (pages.size > MAX_OPEN_PAGES && oldest !== undefined) pages.delete(oldest);
    return token;
  }

  function watch(selection: Selection, open: () => WatchSink): void {
    const { query, resource } = selection;
    const matches = predicate(selection);
    const requested = query.get("resourceVersion") ?? "";
    let from = Number(requested);
    if (!Number.isInteger(from)) throw badRequest(`Invalid resource version: ${requested}`);
    const timeoutSeconds = numberOf(query, "timeoutSeconds");
    const sink = open();
    if (requested === "" || requested === "0") {
      from = storage.version;
      for (const object of storage.list(resource)) if (matches(object)) sink.send({ type: "ADDED", object });
    }
    let subscription: Disposable;
    try {
      subscription = storage.watch(resource, from, (event) => forward(event, matches, sink));
    } catch (status) {
      sink.send({ type: "ERROR", object: status }); // as kube-apiserver: 200, and 410 within the stream
      return sink.end();
    }
    const timers: NodeJS.Timeout[] = [];
    if (query.get("allowWatchBookmarks") === "true") {
      timers.push(setInterval(() => sink.send(bookmark(resource)), options.bookmarkIntervalMs));
    }
    if (timeoutSeconds > 0) timers.push(setTimeout(() => sink.end(), timeoutSeconds * 1000));
    sink.closed.addEventListener("abort", () => {
      subscription[Symbol.dispose]();
      for (const timer of timers) clearTimeout(timer);
    });
  }

  function bookmark(resource: ServedResource): { type: string; object: unknown } {
    const metadata = { resourceVersion: String(storage.version), creationTimestamp: null };
    return {
      type: "BOOKMARK",
      object: { apiVersion: apiVersionOf(resource), kind: resource.kind, metadata },
    };
  }

  return { list, watch, expirePages: () => pages.clear() };
}

/** An object that stops matching the selector is deleted for this watcher, one that starts to is added. */
function forward(event: StoredEvent, matches: (object: ApiObject) => boolean, sink: WatchSink): void {
  const before = event.previous !== undefined && matches(event.previous);
  const now = matches(event.object);
  if (event.type === "DELETED") {
    if (now) sink.send({ type: "DELETED", object: event.object });
  } else if (now) {
    sink.send({ type: before ? "MODIFIED" : "ADDED", object: event.object });
  } else if (before) {
    const { resourceVersion } = event.object.metadata;
    const last = event.previous as ApiObject;
    sink.send({ type: "DELETED", object: { ...last, metadata: { ...last.metadata, resourceVersion } } });
  }
}

function predicate({ namespace, query }: Selection): (object: ApiObject) => boolean {
  const byLabel = parseLabelSelector(query.get("labelSelector") ?? "");
  const fields = query.get("fieldSelector") ?? "";
  const byField = fields === "" ? () => true : parseFieldSelector(fields);
  return (object) =>
    (namespace === undefined || object.metadata.namespace === namespace) &&
    byLabel(object.metadata.labels ?? {}) &&
    byField(object);
}

/** Items of built-in resources carry no type in lists; those of custom resources do. */
function listItem(resource: ServedResource, object: ApiObject): ApiObject {
  if (resource.group.includes(".") && !resource.group.endsWith(".k8s.io")) return object;
  const { apiVersion: _apiVersion, kind: _kind, ...item } = object;
  return item as ApiObject;
}

function numberOf(query: URLSearchParams, name: string): number {
  const text = query.get(name) ?? "0";
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0)
    throw badRequest(`${name}: Invalid value: ${JSON.stringify(text)}`);
  return value;
}
