// SPDX-License-Identifier: Apache-2.0
import { createHash } from "node:crypto";
import { type AddressPolicy, createAddressPolicy, parseRouterAddress } from "../address-policy.ts";
import { type Contact, closest, createContact, distanceTo } from "../contact.ts";
import { SwarmError } from "../errors.ts";
import { binaryBytes, binaryString, kademliaIdOf, multihashOf } from "../key.ts";
import type { PeerClient } from "../ports.ts";
import { answer, REPLICATION } from "../protocol/answer.ts";
import { createFrameReader } from "../protocol/frame.ts";
import { createProviderStore, type ProviderStore } from "../provider-store.ts";

/** A peer id multihash and an endpoint 10.x.y.z made of a number. */
export function contactNumber(n: number): Contact {
  const publicKey = createHash("sha256").update(`node ${n}`).digest();
  const multihash = Buffer.concat([Buffer.from([0x00, 0x24, 0x08, 0x01, 0x12, 0x20]), publicKey]);
  return createContact(multihash, [{ ip: `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`, port: 5001 }]);
}

export const openPolicy: AddressPolicy = createAddressPolicy(
  { interfaces: () => ({}), now: () => 0 },
  parseRouterAddress(":5001"),
);

/** The frame inside one length-prefixed message. */
export function unframe(bytes: Uint8Array): Uint8Array {
  const reader = createFrameReader();
  reader.push(bytes);
  const frame = reader.next();
  if (frame === undefined) throw new Error("not a whole frame");
  return frame;
}

export interface VirtualNode {
  readonly contact: Contact;
  readonly store: ProviderStore;
  readonly table: readonly Contact[];
}

export interface VirtualSwarm {
  readonly nodes: readonly VirtualNode[];
  /** Leaves a record on the nodes nearest to the key. */
  provide(key: string, provider: Contact): void;
  /** Requests from `asker`; `delay` decides per node: milliseconds (Infinity for a node that hangs), or "dead". */
  client(
    asker: Contact,
    delay?: (node: Contact) => number | "dead",
  ): PeerClient & { readonly requests: number };
}

/** A swarm without a network: every node has a routing table of 20-node buckets and answers as a real one does. */
export function createVirtualSwarm(size: number): VirtualSwarm {
  const contacts = Array.from({ length: size }, (_, n) => contactNumber(n));
  const nodes = contacts.map((contact) => ({
    contact,
    store: createProviderStore({ now: () => 0 }),
    table: tableOf(contact, contacts),
  }));
  const byId = new Map(nodes.map((node) => [node.contact.id, node]));
  return {
    nodes,
    provide(key, provider) {
      const multihash = multihashOf(key);
      for (const { id } of closest(contacts, kademliaIdOf(multihash), REPLICATION)) {
        byId.get(id)?.store.add(binaryString(multihash), provider.id, provider.info);
      }
    },
    client(asker, delay = () => 0) {
      let requests = 0;
      return {
        get requests() {
          return requests;
        },
        async request(contact, frames, { signal }) {
          requests++;
          const node = byId.get(contact.id);
          const delayMs = delay(contact);
          if (delayMs === Infinity) await new Promise(() => {});
          await new Promise((resolve) =>
            delayMs === 0 ? setImmediate(resolve) : setTimeout(resolve, delayMs === "dead" ? 5 : delayMs),
          );
          signal.throwIfAborted();
          if (node === undefined || delayMs === "dead")
            throw new SwarmError({ code: "SWARM_PEER_UNREACHABLE", message: "dead" });
          const deps = {
            self: () => node.contact,
            contacts: () => node.table,
            isOwnKey: () => false,
            store: node.store,
            policy: openPolicy,
          };
          return unframe(answer(deps, asker.id, unframe(frames)) ?? new Uint8Array(0));
        },
      };
    },
  };
}

/** Up to 20 nodes of each distance, as a routing table has them. */
function tableOf(self: Contact, all: readonly Contact[]): Contact[] {
  const distance = distanceTo(kademliaIdOf(binaryBytes(self.id)));
  const buckets = new Map<number, Contact[]>();
  for (const contact of all) {
    if (contact.id === self.id) continue;
    const bucket = Math.floor(Math.log2(distance(contact) + 1));
    const known = buckets.get(bucket) ?? [];
    if (known.length < REPLICATION) known.push(contact);
    buckets.set(bucket, known);
  }
  return [...buckets.values()].flat();
}
