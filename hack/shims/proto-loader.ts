// SPDX-License-Identifier: Apache-2.0
/**
 * Stands for `@grpc/proto-loader` in bundles. grpc-js loads it only to serve its own introspection (channelz,
 * ORCA); messages of ours are described in api/containerd.
 */
export function loadSync(): never {
  throw new Error("proto files are not loaded at run time in this build");
}
