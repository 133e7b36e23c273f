// SPDX-License-Identifier: Apache-2.0
/**
 * A stand-in for the way of an OperatingSystemConfig to a node: Gardener's validation, gardenlet's resolution
 * of Secrets, and the gardener-node-agent, all on a folder instead of a machine.
 */
export { type Applied, applyOSC, type NodeOptions } from "./apply.ts";
export { patchContainerdConfig } from "./containerd-config.ts";
export { renderHostsToml } from "./hosts-toml.ts";
export { validateOSC } from "./validate.ts";
