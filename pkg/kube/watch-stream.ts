// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage } from "node:http";
import { errorOfStatus, KubeError, type StatusBody } from "./errors.ts";
import type { KubeObject } from "./resource.ts";

export interface WatchEvent<T extends KubeObject> {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK";
  readonly object: T;
}

/** kube-apiserver refuses objects above 3 MiB. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;
const NEWLINE = 0x0a;

/**
 * The events of an open watch; returns when the server ends it.
 * @param idleTimeoutMs without a byte for that long the connection counts as dead
 * @throws KubeError KUBE_GONE for an expired version, KUBE_TIMEOUT after silence, KUBE_RESPONSE_INVALID for
 *   anything that is no event, KUBE_UNAVAILABLE when the connection breaks
 */
export async function* readWatch<T extends KubeObject>(
  response: IncomingMessage,
  what: string,
  options: { readonly signal: AbortSignal; readonly idleTimeoutMs: number },
): AsyncGenerator<WatchEvent<T>, void, undefined> {
  const idle = setTimeout(() => {
    response.destroy(
      new KubeError({ code: "KUBE_TIMEOUT", message: `${what}: silent for ${options.idleTimeoutMs} ms` }),
    );
  }, options.idleTimeoutMs);
  idle.unref();
  try {
    for await (const line of readLines(response, what, () => idle.refresh())) yield parseEvent<T>(line, what);
  } catch (error) {
    if (options.signal.aborted) throw options.signal.reason;
    if (error instanceof KubeError) throw error;
    throw new KubeError({ code: "KUBE_UNAVAILABLE", message: `${what}: the watch broke off`, cause: error });
  } finally {
    clearTimeout(idle);
    response.destroy();
  }
}

async function* readLines(
  response: IncomingMessage,
  what: string,
  onBytes: () => void,
): AsyncGenerator<string, void, undefined> {
  let parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    onBytes();
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      parts.push(chunk.subarray(start, end));
      const line = Buffer.concat(parts).toString("utf8");
      parts = [];
      size = 0;
      start = end + 1;
      if (line !== "") yield line;
    }
    parts.push(chunk.subarray(start));
    size += chunk.length - start;
    if (size > MAX_LINE_BYTES) {
      throw new KubeError({
        code: "KUBE_RESPONSE_INVALID",
        message: `${what}: an event is larger than ${MAX_LINE_BYTES} bytes`,
      });
    }
  }
}

function parseEvent<T extends KubeObject>(line: string, what: string): WatchEvent<T> {
  let event: { type?: unknown; object?: unknown };
  try {
    event = JSON.parse(line) as typeof event;
  } catch (cause) {
    throw new KubeError({ code: "KUBE_RESPONSE_INVALID", message: `${what}: an event is not JSON`, cause });
  }
  const { type, object } = event ?? {};
  if (type === "ERROR") {
    const status = (object ?? {}) as StatusBody;
    throw errorOfStatus(what, typeof status.code === "number" ? status.code : 500, status);
  }
  const known = type === "ADDED" || type === "MODIFIED" || type === "DELETED" || type === "BOOKMARK";
  if (!known || !isNamed(object, type)) {
    throw new KubeError({ code: "KUBE_RESPONSE_INVALID", message: `${what}: not a watch event` });
  }
  return { type, object: object as T };
}

/** A bookmark has a version and no name. */
function isNamed(object: unknown, type: string): boolean {
  if (typeof object !== "object" || object === null || !("metadata" in object)) return false;
  const metadata = object.metadata as { readonly name?: unknown; readonly resourceVersion?: unknown } | null;
  return typeof (type === "BOOKMARK" ? metadata?.resourceVersion : metadata?.name) === "string";
}
