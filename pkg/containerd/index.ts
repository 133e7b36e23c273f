// SPDX-License-Identifier: Apache-2.0
/**
 * containerd as a content store: images, content and events over its gRPC socket, bytes from its files.
 *
 * The only package that loads @grpc/grpc-js.
 */
export {
  type ContainerdStore,
  type ContainerdStoreOptions,
  openContainerdStore,
} from "./containerd-store.ts";
