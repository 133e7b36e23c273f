// SPDX-License-Identifier: Apache-2.0
/**
 * containerd's `certs.d`: put mirrors in front of every registry, and put everything back.
 *
 * `writeMirrorConfiguration` reads top to bottom as what happens: back up, adopt what people changed, plan, write.
 * Files are byte for byte Spegel's; unlike Spegel nothing that people put there is lost, at no point of an
 * interrupted run.
 */
export { HostsError, type HostsErrorCode } from "./errors.ts";
export { restoreConfiguration } from "./restore-configuration.ts";
export {
  type HostsDeps,
  type MirrorConfiguration,
  writeMirrorConfiguration,
} from "./write-mirror-configuration.ts";
