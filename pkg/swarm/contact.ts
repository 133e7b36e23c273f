// SPDX-License-Identifier: Apache-2.0
import type { PeerId } from "@libp2p/interface";
import { peerIdFromMultihash } from "@libp2p/peer-id";
import * as Digest from "multiformats/hashes/digest";
import { SwarmError } from "./errors.ts";
import { type Endpoint, encodeEndpoint } from "./ip-address.ts";
import { binaryString, kademliaIdOf } from "./key.ts";
import { encodePeer } from "./protocol/message.ts";

/** A node of the swarm and its place in the key space. */
export interface Contact {
  /** The peer id's multihash as binary string. */
  readonly id: string;
  readonly peerId: PeerId;
  /** Where it says that it listens; empty when libp2p's peer store knows better. */
  readonly endpoints: readonly Endpoint[];
  /** Id and endpoints as they go into a message. */
  readonly info: Uint8Array;
  /** The first 48 bits of its Kademlia id: enough to order any swarm by distance. 32 of them with a sign, which V8 keeps in place. */
  readonly high: number;
  readonly low: number;
}

/** Contacts that find the nearest of them without a look at all, see `createContactIndex`. */
export interface IndexedContacts extends Iterable<Contact> {
  /** See the function of this name. */
  closest(target: Buffer, count: number): Contact[];
}

/** @throws SwarmError SWARM_MESSAGE_INVALID when the bytes are no peer id. */
export function createContact(multihash: Uint8Array, endpoints: readonly Endpoint[] = []): Contact {
  let peerId: PeerId;
  try {
    peerId = peerIdFromMultihash(Digest.decode(Uint8Array.from(multihash)));
  } catch (cause) {
    throw new SwarmError({ code: "SWARM_MESSAGE_INVALID", message: "not a peer id", cause });
  }
  return contactOf(peerId, endpoints);
}

export function contactOf(peerId: PeerId, endpoints: readonly Endpoint[] = []): Contact {
  const multihash = peerId.toMultihash().bytes;
  const kademliaId = kademliaIdOf(multihash);
  return {
    id: binaryString(multihash),
    peerId,
    endpoints,
    info: encodePeer({ id: multihash, addresses: endpoints.map(encodeEndpoint) }),
    high: kademliaId.readInt32BE(0),
    low: kademliaId.readUInt16BE(4),
  };
}

/** The `id` of a contact with this peer id. */
export function idOf(peerId: PeerId): string {
  return binaryString(peerId.toMultihash().bytes);
}

/** The XOR distance of a contact to a Kademlia id, as a number of 48 bits. */
export function distanceTo(target: Buffer): (contact: Contact) => number {
  const high = target.readUInt32BE(0);
  const low = target.readUInt16BE(4);
  return (contact) => ((contact.high ^ high) >>> 0) * 0x1_0000 + (contact.low ^ low);
}

/** The `count` contacts nearest to a Kademlia id, nearest first. */
export function closest(
  contacts: Iterable<Contact> | IndexedContacts,
  target: Buffer,
  count: number,
): Contact[] {
  if ("closest" in contacts) return contacts.closest(target, count);
  const high = target.readInt32BE(0);
  const distance = distanceTo(target);
  /** Sorted; most contacts of a large table are farther than all of them and are passed over at once. */
  const nearest: Contact[] = [];
  const distances: number[] = [];
  let limit = 2 ** 32;
  for (const contact of contacts) {
    if ((contact.high ^ high) >>> 0 > limit) continue;
    const own = distance(contact);
    if (nearest.length === count && own >= (distances[count - 1] as number)) continue;
    let at = nearest.length < count ? nearest.length : count - 1;
    for (; at > 0 && (distances[at - 1] as number) > own; at--) {
      nearest[at] = nearest[at - 1] as Contact;
      distances[at] = distances[at - 1] as number;
    }
    nearest[at] = contact;
    distances[at] = own;
    if (nearest.length === count) limit = ((nearest[count - 1] as Contact).high ^ high) >>> 0;
  }
  return count > 0 ? nearest : [];
}
