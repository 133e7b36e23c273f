// SPDX-License-Identifier: Apache-2.0

/** `mirrorResolveTimeout` -> `mirror-resolve-timeout` */
export function flagName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `mirrorResolveTimeout` -> `MIRROR_RESOLVE_TIMEOUT` */
export function environmentName(key: string): string {
  return flagName(key).replaceAll("-", "_").toUpperCase();
}
