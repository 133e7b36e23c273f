// SPDX-License-Identifier: Apache-2.0
/**
 * A client that pulls images as containerd does: hosts.toml, mirrors first, the next host per request, digests
 * checked, a broken body resumed by range beginning again with the first host.
 *
 * It follows containerd's resolver and fetcher (`core/remotes/docker`) of 1.6 to 2.1 where those agree. It also
 * fails as they do: wrong bytes and a reset connection end the pull, and nothing shields it from a mirror that
 * hangs except the progress timeout.
 */
export { createPullClient, type PullClientOptions } from "./create-pull-client.ts";
export type { PullErrorCode } from "./errors.ts";
export { loadHosts } from "./load-hosts.ts";
export type { Part, PulledObject, PullReport } from "./report.ts";
