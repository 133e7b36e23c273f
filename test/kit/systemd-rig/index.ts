// SPDX-License-Identifier: Apache-2.0
/**
 * A Shoot node under a real systemd: Debian's systemd as pid 1 in pid, mount, control group, network, ipc and uts
 * namespaces of its own, Debian's containerd.service, and the units exactly as they stand in a mutated
 * OperatingSystemConfig. Needs root. Nothing in it reaches the machine's network, files or kernel settings.
 */

export { unpackDebianPackage } from "./debian-package.ts";
export { parseExposition } from "./exposition.ts";
export type { UnitState } from "./machine.ts";
export {
  FULL_LOADS,
  type LoadReport,
  prepareMemoryLoads,
} from "./memory-loads.ts";
export { openSystemdRig, type SharedImage } from "./rig.ts";
