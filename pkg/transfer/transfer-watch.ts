// SPDX-License-Identifier: Apache-2.0
import type { Client } from "./client.ts";
import type { TransferEnd } from "./outcome.ts";

/** How long a client may take nothing, unless the caller says otherwise. */
export const DEFAULT_CLIENT_STALL_TIMEOUT_MS = 60_000;

/** Whom a transfer waits for; nobody's time runs while it works. */
export type WaitingFor = "source" | "client" | "nobody";

/** Everything that may end a transfer from outside, observed with one timer and two listeners. */
export interface TransferWatch {
  /** Why it ended; undefined while it runs. The first reason stands. */
  readonly ended: TransferEnd | undefined;
  /** Calls back once it ended, for waits that must end with it; at once if it has ended already. */
  whenEnded(callback: () => void): void;
  /** Says who is waited for from now on. Called per block, so it only notes the time. */
  waitFor(party: WaitingFor): void;
  /** Ends the transfer; removes the listeners and the timer. */
  end(reason: TransferEnd): void;
}

export interface TransferWatchOptions {
  readonly client: Client;
  readonly signal: AbortSignal;
  /** Bound on one wait for the source; Infinity for none. */
  readonly stallTimeoutMs: number;
  /** What the source has delivered so far, and the least it must; see `RelayOptions.leastBytesPerSecond`. */
  readonly progress?: { bytes(): number; leastBytesPerSecond(): number };
  /** Bound on one wait for the client. */
  readonly clientStallTimeoutMs: number;
  /** Called once, with the reason. */
  onEnd(reason: TransferEnd): void;
}

/** How often progress is looked at, when it is. */
const PROGRESS_INTERVAL_MS = 200;
/** A timer this late means that this process did not run; nobody else is to blame for that time. */
const ASLEEP_MS = 200;

export function createTransferWatch(options: TransferWatchOptions): TransferWatch {
  const { client, signal, progress } = options;
  const longestDelayMs = Math.min(
    options.stallTimeoutMs,
    options.clientStallTimeoutMs,
    progress === undefined ? Number.POSITIVE_INFINITY : PROGRESS_INTERVAL_MS,
  );
  let ended: TransferEnd | undefined;
  let party: WaitingFor = "nobody";
  let sinceMs = performance.now();
  let timer: NodeJS.Timeout | undefined;
  let dueMs = 0;
  /** Since the last look: when that was, what had arrived by then, and time in which the source was not waited for. */
  let lookedMs = sinceMs;
  let lookedBytes = 0;
  let excusedMs = 0;
  /** Time waited for the source that its bytes have not paid for. */
  let debtMs = 0;
  const callbacks: (() => void)[] = [];

  const onAbort = (): void => end("aborted");
  const stopListening = client.onGone(() => end("client-gone"));
  signal.addEventListener("abort", onAbort, { once: true });
  arm(longestDelayMs);

  function arm(wantedMs: number): void {
    const delayMs = Math.max(1, Math.min(wantedMs, 2 ** 31 - 1));
    dueMs = performance.now() + delayMs;
    timer = setTimeout(look, delayMs);
  }

  /** The timer is not moved with every block: when it fires it looks how long this wait has lasted. */
  function look(): void {
    const nowMs = performance.now();
    if (nowMs - dueMs > ASLEEP_MS) excuse(nowMs - dueMs, nowMs);
    const limitMs = party === "client" ? options.clientStallTimeoutMs : options.stallTimeoutMs;
    const leftMs = party === "nobody" ? limitMs : sinceMs + limitMs - nowMs;
    if (leftMs <= 0) return end(party === "client" ? "client-gone" : "source-stalled");
    if (progress !== undefined && !keepsUp(nowMs)) return end("source-slow");
    arm(Math.min(leftMs, longestDelayMs));
  }

  function excuse(asleepMs: number, nowMs: number): void {
    sinceMs = Math.min(nowMs, sinceMs + asleepMs);
    if (party === "source") excusedMs += asleepMs;
  }

  function keepsUp(nowMs: number): boolean {
    if (progress === undefined) return true;
    if (party !== "source") excusedMs += nowMs - Math.max(sinceMs, lookedMs);
    const waitedMs = nowMs - lookedMs - excusedMs;
    const bytes = progress.bytes();
    const paidMs = ((bytes - lookedBytes) / progress.leastBytesPerSecond()) * 1000;
    debtMs = Math.max(0, debtMs + waitedMs - paidMs);
    lookedMs = nowMs;
    lookedBytes = bytes;
    excusedMs = 0;
    return debtMs <= options.stallTimeoutMs;
  }

  function end(reason: TransferEnd): void {
    if (ended !== undefined) return;
    ended = reason;
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
    stopListening();
    options.onEnd(reason);
    for (const callback of callbacks) callback();
  }

  return {
    get ended() {
      return ended;
    },
    whenEnded(callback) {
      if (ended === undefined) callbacks.push(callback);
      else callback();
    },
    waitFor(next) {
      const nowMs = performance.now();
      if (party !== "source") excusedMs += nowMs - Math.max(sinceMs, lookedMs);
      party = next;
      sinceMs = nowMs;
    },
    end,
  };
}
