// SPDX-License-Identifier: Apache-2.0
import type { NodeSettings } from "./context.ts";

/** Made once for settings, which are the same object for all node configurations of a Shoot. */
export function oncePerNode<T extends object>(make: (node: NodeSettings) => T): (node: NodeSettings) => T {
  const made = new WeakMap<NodeSettings, T>();
  return (node) => {
    const known = made.get(node);
    if (known !== undefined) return known;
    const value = make(node);
    made.set(node, value);
    return value;
  };
}
