// SPDX-License-Identifier: Apache-2.0
import { SwarmError } from "../errors.ts";
import { type BootstrapSource, parseBootstrapPeer } from "./source.ts";

/**
 * Nodes that an operator wrote down: multiaddrs with `/p2p/<id>`, the port optional.
 * @throws SwarmError SWARM_ADDRESS_INVALID when one is malformed or names no peer.
 */
export function createStaticBootstrap(options: {
  readonly addresses: readonly string[];
  readonly defaultPort: number;
}): BootstrapSource {
  const peers = options.addresses.map((address) => {
    const peer = parseBootstrapPeer([address], { defaultPort: options.defaultPort });
    if (peer.id === undefined)
      throw new SwarmError({
        code: "SWARM_ADDRESS_INVALID",
        message: `${address} names no peer: /p2p/<id> is missing`,
      });
    return peer;
  });
  return { name: "static", peers: async () => peers };
}
