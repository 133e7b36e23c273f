// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from "node:util";
import { createInformer, type KubeClient, type KubeObject, NODES, type Resource } from "#kube";
import type { Logger } from "#log";
import type { NodeAddressEntry, NodeSource } from "./node-source.ts";

/** The part of core/v1 Node that is read. */
interface KubernetesNode extends KubeObject {
  readonly status?: {
    readonly addresses?: readonly { readonly type?: string; readonly address?: string }[] | null;
    readonly conditions?: readonly { readonly type?: string; readonly status?: string }[] | null;
  };
}

export interface KubernetesNodes extends NodeSource, AsyncDisposable {
  /** Resolves after the first complete list; rejects when the signal aborts first. */
  synced(options: { readonly signal: AbortSignal }): Promise<void>;
}

const MAX_ADDRESSES_KEPT = 16;
/** Nodes carry long lists of images that are thrown away. With 1,000 nodes the client holds 23 MB, with pages of 50 it holds 31. */
const PAGE_SIZE = 20;

/**
 * The nodes of a cluster, kept up to date. While the API server is away, the last state stays.
 *
 * Only what the list needs is kept of each node, and a node's heartbeats change nothing.
 */
export function openKubernetesNodes(deps: {
  readonly client: KubeClient;
  readonly logger: Logger;
}): KubernetesNodes {
  const resource: Resource<KubernetesNode> = NODES;
  const informer = createInformer(deps, { resource, trim: readNode, pageSize: PAGE_SIZE });
  let snapshot: readonly NodeAddressEntry[] | undefined;
  const subscription = informer.subscribe((event) => {
    if (event.type === "modified" && isDeepStrictEqual(event.object, event.previous)) return;
    snapshot = undefined;
  });
  return {
    nodes() {
      if (!informer.hasSynced) return undefined;
      snapshot ??= [...informer.values()];
      return snapshot;
    },
    synced: (options) => informer.synced(options),
    async [Symbol.asyncDispose]() {
      subscription[Symbol.dispose]();
      await informer[Symbol.asyncDispose]();
    },
  };
}

function readNode(node: KubernetesNode): NodeAddressEntry {
  const { metadata, status } = node;
  const createdAtMs = Date.parse(metadata.creationTimestamp ?? "");
  return {
    name: metadata.name,
    addresses: (status?.addresses ?? [])
      .filter((each) => each.type === "InternalIP" && typeof each.address === "string")
      .slice(0, MAX_ADDRESSES_KEPT)
      .map((each) => each.address as string),
    isReady: (status?.conditions ?? []).some((each) => each.type === "Ready" && each.status === "True"),
    isTerminating: metadata.deletionTimestamp !== undefined,
    createdAtMs: Number.isNaN(createdAtMs) ? Number.MAX_SAFE_INTEGER : createdAtMs,
  };
}
