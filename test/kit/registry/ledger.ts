// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage } from "node:http";

const MAX_RECORDS = 100_000;

/** One request a registry was asked, and what it sent. */
export interface RequestRecord {
  readonly method: string;
  readonly path: string;
  /** containerd's namespace query, when the client took this registry for a mirror. */
  readonly ns?: string;
  /** Address of the client. */
  readonly client: string;
  readonly range?: string;
  readonly userAgent?: string;
  /** 0 until headers were sent. */
  readonly status: number;
  /** Body bytes handed to the socket so far. */
  readonly bytes: number;
  /** From the request to the newest of these bytes. */
  readonly durationMs: number;
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** The book of a registry: the newest requests, and sums over all of them. */
export interface Ledger {
  open(request: IncomingMessage): { status(code: number): void; sent(bytes: number): void };
  requests(): readonly RequestRecord[];
  /** Body bytes sent in answers to GET, to everybody or to one client. */
  bytesServed(client?: string): number;
}

export function createLedger(): Ledger {
  const records: Mutable<RequestRecord>[] = [];
  const servedByClient = new Map<string, number>();
  return {
    open(request) {
      const record = recordOf(request);
      const openedMs = performance.now();
      records.push(record);
      if (records.length > MAX_RECORDS) records.shift();
      return {
        status(code) {
          record.status = code;
        },
        sent(bytes) {
          record.bytes += bytes;
          record.durationMs = performance.now() - openedMs;
          if (record.method !== "GET") return;
          servedByClient.set(record.client, (servedByClient.get(record.client) ?? 0) + bytes);
        },
      };
    },
    requests: () => records.map((record) => ({ ...record })),
    bytesServed(client) {
      if (client !== undefined) return servedByClient.get(client) ?? 0;
      return [...servedByClient.values()].reduce((sum, bytes) => sum + bytes, 0);
    },
  };
}

function recordOf(request: IncomingMessage): Mutable<RequestRecord> {
  const url = new URL(request.url ?? "/", "http://registry");
  const ns = url.searchParams.get("ns");
  const { range, "user-agent": userAgent } = request.headers;
  return {
    method: request.method ?? "",
    path: url.pathname,
    client: (request.socket.remoteAddress ?? "").replace(/^::ffff:/, ""),
    status: 0,
    bytes: 0,
    durationMs: 0,
    ...(ns === null ? {} : { ns }),
    ...(range === undefined ? {} : { range }),
    ...(userAgent === undefined ? {} : { userAgent }),
  };
}
