// SPDX-License-Identifier: Apache-2.0
/**
 * A cluster in miniature inside network namespaces: an upstream registry, and nodes with a real containerd and the
 * daemon each. Needs root, iproute2, containerd and runc. Nothing in it can reach the machine's own network.
 */
export { type ContainerdBinary, findContainerdBinaries, spreadGenerations } from "./containerd-binaries.ts";
export type { ContainerdNode } from "./containerd-node.ts";
export { createCRI } from "./cri.ts";
export { enterNamespace, inNamespace, type Namespace, openNetwork, type RigNetwork } from "./network.ts";
export { type Lie, type ProxiedRequest, type Proxy, startProxy } from "./proxy.ts";
export { openRig, type Rig, type RigImage, type RigOptions, UPSTREAM } from "./rig.ts";
export type { SpegelNode } from "./spegel-node.ts";
