// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from "node:http";
import { ApiStatus } from "./status.ts";

export interface FaultMatch {
  readonly method?: string;
  /** Tested against the path with its query. */
  readonly path?: RegExp;
  readonly watch?: boolean;
  /** How many requests it hits; default all until disposed. */
  readonly times?: number;
}

export type FaultAction =
  | { readonly status: number; readonly message?: string; readonly retryAfterSeconds?: number }
  /** Closes the connection without an answer. */
  | "reset"
  /** Never answers. */
  | "hang"
  /** Waits for the promise, then handles the request normally. */
  | { readonly after: Promise<unknown> }
  /** Answers 200 with this body. */
  | { readonly body: string };

export interface Faults {
  /** Misbehaves for matching requests until disposed or used up. */
  inject(match: FaultMatch, action: FaultAction): Disposable;
  /** Ends all running watches, as a restarting API server does. */
  dropWatches(): void;
  /** From now on running watches stay open and carry nothing: neither events nor bookmarks. */
  silenceWatches(): void;
  /** Sends this line on every running watch. */
  writeToWatches(line: string): void;
  /** Forgets the recorded changes: the next resume from an older version gets 410. */
  compact(): void;
}

export interface FaultPlan {
  inject(match: FaultMatch, action: FaultAction): Disposable;
  take(request: { method: string; path: string; watch: boolean }): FaultAction | undefined;
}

export function createFaultPlan(): FaultPlan {
  const entries = new Set<{ match: FaultMatch; action: FaultAction; left: number }>();
  return {
    inject(match, action) {
      const entry = { match, action, left: match.times ?? Number.POSITIVE_INFINITY };
      entries.add(entry);
      return { [Symbol.dispose]: () => void entries.delete(entry) };
    },
    take({ method, path, watch }) {
      for (const entry of entries) {
        const { match } = entry;
        if (match.method !== undefined && match.method !== method) continue;
        if (match.path !== undefined && !match.path.test(path)) continue;
        if (match.watch !== undefined && match.watch !== watch) continue;
        if (--entry.left <= 0) entries.delete(entry);
        return entry.action;
      }
      return undefined;
    },
  };
}

/** Misbehaves as the action says. False when the request is to be handled after all. */
export async function misbehave(
  fault: FaultAction,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<boolean> {
  if (fault === "hang") return true;
  if (fault === "reset") {
    request.socket.destroy();
    return true;
  }
  if ("after" in fault) {
    await fault.after;
    return false;
  }
  const headers: Record<string, string> = { "content-type": "application/json" };
  if ("body" in fault) {
    response.writeHead(200, headers).end(fault.body);
    return true;
  }
  const { status, message = "injected fault", retryAfterSeconds } = fault;
  if (retryAfterSeconds !== undefined) headers["retry-after"] = String(retryAfterSeconds);
  response.writeHead(status, headers).end(JSON.stringify(new ApiStatus(status, "Injected", message)));
  return true;
}
