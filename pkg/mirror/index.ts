// SPDX-License-Identifier: Apache-2.0
/**
 * Answers image pulls: local content, else a peer, else 404.
 *
 * `pull.ts` is the table of contents. Nothing here knows libp2p, containerd or any program: content comes from a
 * `ContentStore`, peers from a `Router`, bytes move through `#transfer`.
 */
export { type BasicAuth, createBasicAuth, readBasicAuth } from "./basic-auth.ts";
export { MirrorError, type MirrorErrorCode } from "./errors.ts";
export { createFilters, type Filters } from "./filters.ts";
export { createMirrorMetrics, type MirrorMetrics } from "./metrics.ts";
export type { MirrorDeps, MirrorOptions, PullRecord } from "./mirror.ts";
export { createPeerHealth, type PeerHealth } from "./peer-health.ts";
export { openRegistryServer, type RegistryServerDeps } from "./registry-server.ts";
