// SPDX-License-Identifier: Apache-2.0
/**
 * Answer of `GET /bootstrap-nodes`: a JSON array of peers to begin with, in Spegel's form.
 *
 * Spegel uses the first three elements only. `ID` may be empty: the client then learns it while connecting.
 * An address without a port means the client's own router port. An empty array is a valid answer.
 */
import { type Static, Type } from "typebox";

export const BootstrapNodeSchema = Type.Object({
  ID: Type.Optional(Type.String({ maxLength: 128, description: "libp2p peer id, or empty." })),
  Addrs: Type.Array(Type.String({ maxLength: 256 }), {
    maxItems: 16,
    description: "Multiaddrs of one node, the preferred address family first, e.g. /ip4/10.250.0.4.",
  }),
});

export const BootstrapNodeListSchema = Type.Array(BootstrapNodeSchema, { maxItems: 1000 });

export type BootstrapNode = Static<typeof BootstrapNodeSchema>;
export type BootstrapNodeList = readonly BootstrapNode[];
