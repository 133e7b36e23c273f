// SPDX-License-Identifier: Apache-2.0
import type { PeerConnection } from "./peer-connection.ts";

/** Idle connections to peers, kept for the next request. Pass it to `requestPeer`; disposing closes them all. */
export interface PeerPool extends AsyncDisposable {
  /** An idle connection, the one used last. */
  take(peer: string): PeerConnection | undefined;
  /** Keeps a connection whose response was read completely; closes it when there is no room. */
  keep(peer: string, connection: PeerConnection, idleTimeoutMs: number): void;
  readonly idleCount: number;
}

export interface PeerPoolOptions {
  /** Most idle connections to one peer; default 8: three layers and the small objects of two images. */
  readonly perPeer?: number;
  /** Most idle connections in all; default 64. The oldest makes room. */
  readonly total?: number;
  /** A connection that was idle for this long is closed; default 15 s. A peer that announces less gets less. */
  readonly idleTimeoutMs?: number;
}

interface Idle {
  readonly peer: string;
  readonly connection: PeerConnection;
  readonly untilMs: number;
}

export function createPeerPool(options: PeerPoolOptions = {}): PeerPool {
  const perPeer = options.perPeer ?? 8;
  const total = options.total ?? 64;
  const idleTimeoutMs = options.idleTimeoutMs ?? 15_000;
  /** In the order in which they became idle. */
  const idle = new Set<Idle>();
  let timer: NodeJS.Timeout | undefined;
  let disposed = false;

  function remove(entry: Idle): void {
    idle.delete(entry);
    entry.connection.wake();
  }

  function closeEntry(entry: Idle): void {
    remove(entry);
    entry.connection.close();
  }

  function closeOverdue(): void {
    timer = undefined;
    const nowMs = performance.now();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const entry of idle) {
      if (entry.untilMs <= nowMs) closeEntry(entry);
      else nextMs = Math.min(nextMs, entry.untilMs);
    }
    if (idle.size > 0) schedule(nextMs - nowMs);
  }

  function schedule(delayMs: number): void {
    timer = setTimeout(closeOverdue, Math.max(1, delayMs));
    timer.unref();
  }

  return {
    get idleCount() {
      return idle.size;
    },
    take(peer) {
      const nowMs = performance.now();
      let latest: Idle | undefined;
      for (const each of idle) if (each.peer === peer && each.untilMs > nowMs) latest = each;
      if (latest === undefined) return undefined;
      remove(latest);
      return latest.connection;
    },
    keep(peer, connection, announcedMs) {
      const keepMs = Math.min(idleTimeoutMs, announcedMs);
      let same = 0;
      for (const each of idle) if (each.peer === peer) same++;
      if (disposed || !connection.alive || keepMs <= 0 || same >= perPeer) {
        connection.close();
        return;
      }
      const [oldest] = idle;
      if (oldest !== undefined && idle.size >= total) closeEntry(oldest);
      const entry: Idle = { peer, connection, untilMs: performance.now() + keepMs };
      idle.add(entry);
      connection.rest(() => idle.delete(entry));
      if (timer === undefined) schedule(keepMs);
    },
    async [Symbol.asyncDispose]() {
      disposed = true;
      clearTimeout(timer);
      for (const entry of idle) closeEntry(entry);
    },
  };
}
