// SPDX-License-Identifier: Apache-2.0
/**
 * Moving bytes: a local content to a client, a peer's body to a client. The only hot loops of the product; no
 * framework and no stream in between.
 *
 * A file goes from the page cache to the socket by sendfile(2), called through `node:ffi`; where Node lacks that
 * module (or runs with `--no-experimental-ffi`) it is read into a ring of pooled buffers. A peer's bytes are
 * received into one pooled buffer and written from there. All buffers come from one pool with a hard bound.
 */
export {
  type BufferLease,
  type BufferPool,
  type BufferPoolOptions,
  createBufferPool,
  transferBuffers,
} from "./buffer-pool.ts";
export type { ByteRange, ByteSource } from "./byte-source.ts";
export { cutResponse, endResponse } from "./client.ts";
export { TransferError, type TransferErrorCode } from "./errors.ts";
export { hashFile } from "./hash-file.ts";
export type { TransferEnd, TransferOutcome } from "./outcome.ts";
export type { ReadAllOptions, RelayOptions } from "./peer-body.ts";
export { createPeerPool, type PeerPool, type PeerPoolOptions } from "./peer-pool.ts";
export type { PeerResponse } from "./peer-response.ts";
export { readFully } from "./read-fully.ts";
export { type PeerRequest, type PeerRequestOptions, requestPeer } from "./request-peer.ts";
export { HEAD_LIMIT_BYTES } from "./response-head.ts";
export { sendContent } from "./send-content.ts";
export type { SendOptions } from "./send-options.ts";
export { DEFAULT_CLIENT_STALL_TIMEOUT_MS } from "./transfer-watch.ts";
