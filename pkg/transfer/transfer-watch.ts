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
  /** Bound on one wait for the client. */
  readonly clientStallTimeoutMs: number;
  /** Called once, with the reason. */
  onEnd(reason: TransferEnd): void;
}

export function createTransferWatch(options: TransferWatchOptions): TransferWatch {
  const { client, signal } = options;
  let ended: TransferEnd | undefined;
  let party: WaitingFor = "nobody";
  let sinceMs = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const callbacks: (() => void)[] = [];

  const onAbort = (): void => end("aborted");
  const stopListening = client.onGone(() => end("client-gone"));
  signal.addEventListener("abort", onAbort, { once: true });
  arm(Math.min(options.stallTimeoutMs, options.clientStallTimeoutMs));

  function arm(delayMs: number): void {
    timer = setTimeout(look, Math.max(1, Math.min(delayMs, 2 ** 31 - 1)));
  }

  /** The timer is not moved with every block: when it fires it looks how long this wait has lasted. */
  function look(): void {
    const limitMs = party === "client" ? options.clientStallTimeoutMs : options.stallTimeoutMs;
    const leftMs = party === "nobody" ? limitMs : sinceMs + limitMs - performance.now();
    if (leftMs <= 0) end(party === "client" ? "client-gone" : "source-stalled");
    else arm(Math.min(leftMs, options.stallTimeoutMs, options.clientStallTimeoutMs));
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
      party = next;
      sinceMs = performance.now();
    },
    end,
  };
}
