// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import { type ApiUser, authenticate, authorize } from "./authorization.ts";
import { type FaultPlan, misbehave } from "./faults.ts";
import type { Reads, WatchSink } from "./reads.ts";
import { qualifiedName, resourceId, type ServedResource } from "./resources.ts";
import { ApiStatus, badRequest, internal, invalid, notFound } from "./status.ts";
import type { ApiObject, Storage } from "./storage.ts";
import type { Writes, WriteTarget } from "./writes.ts";

/** One handled request, for assertions on what a program did. */
export interface RequestRecord {
  readonly method: string;
  /** Without query. */
  readonly path: string;
  readonly query: string;
  readonly verb: string;
  readonly user: string;
  readonly status: number;
}

export interface ServerParts {
  readonly storage: Storage;
  readonly resources: ReadonlyMap<string, ServedResource>;
  readonly users: ReadonlyMap<string, ApiUser>;
  readonly reads: Reads;
  readonly writes: Writes;
  readonly faults: FaultPlan;
  readonly watches: Set<OpenWatch>;
  record(request: RequestRecord): void;
}

export interface OpenWatch {
  silent: boolean;
  write(line: string): void;
  end(): void;
}

interface Route {
  readonly resource: ServedResource;
  readonly namespace?: string;
  readonly name?: string;
  readonly subresource?: string;
}

const MAX_BODY_BYTES = 3 * 1024 * 1024; // kube-apiserver's limit

/** Answers one request, whatever it is. */
export async function answer(
  parts: ServerParts,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url ?? "/", "http://api");
  const method = request.method ?? "GET";
  const path = url.pathname;
  let user = "";
  let verb = method.toLowerCase();
  try {
    const fault = parts.faults.take({ method, path: request.url ?? "/", watch: isWatch(url) });
    if (fault !== undefined && (await misbehave(fault, request, response))) return;
    if (path === "/healthz" || path === "/livez" || path === "/readyz") return void response.end("ok");
    if (path === "/version")
      return sendJson(response, 200, { major: "1", minor: "36", gitVersion: "v1.36.3" });
    const caller = authenticate(parts.users, request.headers.authorization);
    user = caller.name;
    const route = parseRoute(parts.resources, path);
    verb = verbOf(method, route, url);
    authorize(caller, {
      verb,
      group: route.resource.group,
      resource:
        route.subresource === undefined
          ? route.resource.plural
          : `${route.resource.plural}/${route.subresource}`,
      namespace: route.namespace,
      name: route.name,
    });
    await dispatch(parts, route, { verb, url, request, response, user });
  } catch (error) {
    const status = error instanceof ApiStatus ? error : internal((error as Error).stack ?? String(error));
    if (response.headersSent) response.destroy();
    else sendJson(response, status.code, status);
  } finally {
    parts.record({ method, path, query: url.search.slice(1), verb, user, status: response.statusCode });
  }
}

interface Call {
  readonly verb: string;
  readonly url: URL;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly user: string;
}

async function dispatch(parts: ServerParts, route: Route, call: Call): Promise<void> {
  const { verb, url, request, response } = call;
  const selection = { resource: route.resource, namespace: route.namespace, query: url.searchParams };
  if (verb === "list") return sendJson(response, 200, parts.reads.list(selection));
  if (verb === "watch") return parts.reads.watch(selection, () => openWatch(parts, response));
  if (verb === "get") {
    const object = parts.storage.get(route.resource, `${route.namespace ?? ""}/${route.name}`);
    if (!object) throw notFound(qualifiedName(route.resource), route.name ?? "");
    return sendJson(response, 200, object);
  }
  const target: WriteTarget = {
    resource: route.resource,
    namespace: route.namespace,
    name: route.name,
    status: route.subresource === "status",
    dryRun: url.searchParams.get("dryRun") === "All",
    userName: call.user,
  };
  checkFieldValidation(url);
  const body = await readJson(request);
  if (verb === "create") return sendJson(response, 201, await parts.writes.create(target, body as ApiObject));
  if (verb === "update")
    return sendJson(response, 200, await parts.writes.replace(target, body as ApiObject));
  if (verb === "patch") {
    const mediaType = (request.headers["content-type"] ?? "").split(";")[0] ?? "";
    return sendJson(response, 200, await parts.writes.patch(target, mediaType, body));
  }
  const preconditions = (body as { preconditions?: { uid?: string; resourceVersion?: string } } | undefined)
    ?.preconditions;
  return sendJson(response, 200, await parts.writes.delete(target, preconditions ?? {}));
}

function checkFieldValidation(url: URL): void {
  const value = url.searchParams.get("fieldValidation");
  if (value !== null && !["Strict", "Warn", "Ignore"].includes(value))
    throw invalid("CreateOptions", "", `fieldValidation: Unsupported value: "${value}"`);
}

function openWatch(parts: ServerParts, response: ServerResponse): WatchSink {
  const closed = new AbortController();
  const watch: OpenWatch = {
    silent: false,
    write: (line) => {
      if (!response.writableEnded) response.write(`${line}\n`);
    },
    end: () => response.end(),
  };
  response.writeHead(200, { "content-type": "application/json" });
  response.flushHeaders();
  parts.watches.add(watch);
  response.on("close", () => {
    parts.watches.delete(watch);
    closed.abort();
  });
  return {
    closed: closed.signal,
    send: (event) => {
      if (!watch.silent) watch.write(JSON.stringify(event));
    },
    end: () => watch.end(),
  };
}

const isWatch = (url: URL): boolean => ["true", "1"].includes(url.searchParams.get("watch") ?? "");

/** `/api/v1/...` or `/apis/<group>/<version>/...`, then `[namespaces/<ns>/]<plural>[/<name>[/<subresource>]]`. */
function parseRoute(resources: ReadonlyMap<string, ServedResource>, path: string): Route {
  const parts = path.split("/").slice(1).map(decodeURIComponent);
  const group = parts[0] === "api" ? "" : parts[0] === "apis" ? parts[1] : undefined;
  const [version, ...rest] = parts.slice(group === "" ? 1 : 2);
  const missing = new ApiStatus(404, "NotFound", "the server could not find the requested resource");
  if (group === undefined || version === undefined) throw missing;
  const inNamespace = rest[0] === "namespaces" && rest.length > 2 && rest[2] !== "status";
  const [plural = "", name, subresource, ...more] = inNamespace ? rest.slice(2) : rest;
  const resource = resources.get(resourceId({ group, version, plural }));
  if (!resource || more.length > 0 || (inNamespace && !resource.namespaced)) throw missing;
  if (subresource !== undefined && !(subresource === "status" && resource.status === true)) throw missing;
  if (resource.namespaced && !inNamespace && name !== undefined) throw missing;
  return {
    resource,
    ...(inNamespace && { namespace: rest[1] as string }),
    ...(name !== undefined && { name }),
    ...(subresource !== undefined && { subresource }),
  };
}

function verbOf(method: string, route: Route, url: URL): string {
  const named = route.name !== undefined;
  if (method === "GET") return named ? "get" : isWatch(url) ? "watch" : "list";
  if (method === "POST" && !named && (route.namespace !== undefined || !route.resource.namespaced))
    return "create";
  if (named && route.subresource !== undefined && method === "DELETE") throw notAllowed();
  if (named && method === "PUT") return "update";
  if (named && method === "PATCH") return "patch";
  if (named && method === "DELETE") return "delete";
  throw notAllowed();
}

const notAllowed = (): ApiStatus =>
  new ApiStatus(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new ApiStatus(413, "RequestEntityTooLarge", "Request entity too large");
    chunks.push(chunk);
  }
  if (size === 0) return undefined;
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    throw badRequest("the object provided is unrecognized (must be of type JSON)");
  }
}

function sendJson(response: ServerResponse, code: number, body: unknown): void {
  response.writeHead(code, { "content-type": "application/json" }).end(JSON.stringify(body));
}
