// SPDX-License-Identifier: Apache-2.0
/**
 * Who holds a key. A contract with a compliance kit (`#routing/testing`).
 *
 * Keys are strings: a digest (`sha256:...`) or an image name with tag (`docker.io/library/busybox:1.37.0`).
 * Implementations: `createMemoryRouting` here, the libp2p DHT in `#swarm`.
 */
export { createMemoryRouting, type MemoryRouting } from "./memory.ts";
export type { Peer, Router } from "./router.ts";
