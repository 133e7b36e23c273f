// SPDX-License-Identifier: Apache-2.0
/**
 * libp2p's TLS (`/tls/1.0.0`) on node:tls: self-signed certificates that carry the signature of a node's key, and a
 * strict reader of those of others. Go peers offer it first; what decides against libp2p's own package is its memory.
 */
export { tls } from "./tls.ts";
