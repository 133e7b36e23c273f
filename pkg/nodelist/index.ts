// SPDX-License-Identifier: Apache-2.0
/**
 * Which node addresses may be handed out to a starting daemon, and the route that does so.
 *
 * `serve.ts` is the table of contents; nodes come from a cluster or from a file.
 */
export type { IPFamily } from "./choose.ts";
export { type KubernetesNodes, openKubernetesNodes } from "./kubernetes-nodes.ts";
export type { NodeAddressEntry, NodeSource } from "./node-source.ts";
export {
  NodeListError,
  type NodeListErrorCode,
  type NodesFileOptions,
  openNodesFile,
  parseNodesFile,
} from "./nodes-file.ts";
export {
  createNodeListMetrics,
  createNodeListRoute,
  type NodeListDeps,
  type NodeListMetrics,
  type NodeListOptions,
} from "./serve.ts";
