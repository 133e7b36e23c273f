// SPDX-License-Identifier: Apache-2.0
export interface SendOptions {
  readonly signal: AbortSignal;
  /** Longest wait for one read of the file; default none. The response is cut then, the promise settles when the read returned. */
  readonly stallTimeoutMs?: number;
  /** Longest time in which a client may take nothing; default 60 s. */
  readonly clientStallTimeoutMs?: number;
  /** How a file is sent: by sendfile(2) where possible (default), or always by reading it into a ring of buffers. */
  readonly method?: "sendfile" | "ring";
}
