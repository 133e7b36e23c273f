// SPDX-License-Identifier: Apache-2.0
import type { AddressPolicy } from "../address-policy.ts";
import { type Contact, closest } from "../contact.ts";
import { SwarmError } from "../errors.ts";
import { type Endpoint, encodeEndpoint, parseEndpoint } from "../ip-address.ts";
import { binaryString, kademliaIdOf } from "../key.ts";
import type { ProviderStore } from "../provider-store.ts";
import {
  decodeMessage,
  decodePeer,
  encodeMessage,
  encodePeer,
  type KadMessage,
  MessageType,
} from "./message.ts";

/** Kademlia's k: how many nearest nodes an answer names, and on how many a record is left. */
export const REPLICATION = 20;
/** The longest key that is stored or looked up; go-libp2p-kad-dht draws the same line. */
const MAX_KEY_BYTES = 80;
/** Providers named in one answer; of more, a random part, so that requests spread over all of them. */
const MAX_ANSWERED_PROVIDERS = 40;
/** Addresses kept of one provider. */
const MAX_ENDPOINTS = 8;

export interface AnswerDeps {
  readonly self: () => Contact;
  readonly contacts: () => Iterable<Contact>;
  /** Whether this node itself announces a key (its multihash as binary string). */
  readonly isOwnKey: (key: string) => boolean;
  readonly store: ProviderStore;
  readonly policy: AddressPolicy;
  /** What was made of the last record: a burst of records of one node differs by the key alone. */
  readonly last?: LastProvider;
}

export interface LastProvider {
  sender: string;
  /** As it was sent, and as it is kept; undefined when nothing of it can be used. */
  encoded: Uint8Array;
  info: Uint8Array | undefined;
}

/**
 * What a node of the swarm says to one message of the peer `sender` (its id as binary string): a whole frame, or
 * undefined for a message without an answer. Values (`/pk`, `/ipns`) are neither stored nor found here.
 * @throws SwarmError SWARM_MESSAGE_INVALID: the sender does not speak the protocol.
 */
export function answer(deps: AnswerDeps, sender: string, frame: Uint8Array): Buffer | undefined {
  const message = decodeMessage(frame);
  switch (message.type) {
    case MessageType.PING:
      return encodeMessage({ type: MessageType.PING });
    case MessageType.ADD_PROVIDER:
      addProvider(deps, sender, message);
      return undefined;
    case MessageType.GET_PROVIDERS:
      return getProviders(deps, sender, message);
    case MessageType.FIND_NODE:
      return findNode(deps, sender, message);
    case MessageType.GET_VALUE:
    case MessageType.PUT_VALUE:
      return encodeMessage({ type: message.type, key: keyOf(message) });
    default:
      throw new SwarmError({
        code: "SWARM_MESSAGE_INVALID",
        message: `message type ${message.type} is unknown`,
      });
  }
}

/** A record is believed of its sender alone, and kept only when someone could connect to it. */
function addProvider(deps: AnswerDeps, sender: string, message: KadMessage): void {
  const key = binaryString(keyOf(message));
  for (const encoded of message.providerPeers) {
    const info = infoOf(deps, sender, encoded);
    if (info !== undefined) deps.store.add(key, sender, info);
  }
}

/** A record's provider as it is kept; undefined when it is not the sender or cannot be reached. */
function infoOf(deps: AnswerDeps, sender: string, encoded: Uint8Array): Uint8Array | undefined {
  const { last } = deps;
  if (last?.sender === sender && Buffer.compare(last.encoded, encoded) === 0) return last.info;
  const peer = decodePeer(encoded);
  const endpoints = binaryString(peer.id) === sender ? usable(deps.policy, peer.addresses) : [];
  const info =
    endpoints.length === 0
      ? undefined
      : encodePeer({ id: peer.id, addresses: endpoints.map(encodeEndpoint) });
  if (last !== undefined) Object.assign(last, { sender, encoded: Uint8Array.from(encoded), info });
  return info;
}

function usable(policy: AddressPolicy, addresses: readonly Uint8Array[]): Endpoint[] {
  const endpoints = addresses.map((address) => parseEndpoint(address));
  return endpoints
    .filter((endpoint) => endpoint !== undefined && policy.isUsable(endpoint))
    .slice(0, MAX_ENDPOINTS) as Endpoint[];
}

function getProviders(deps: AnswerDeps, sender: string, message: KadMessage): Buffer {
  const keyBytes = keyOf(message);
  const key = binaryString(keyBytes);
  const providers = deps.store.find(key).map((provider) => provider.info);
  const first =
    providers.length > MAX_ANSWERED_PROVIDERS
      ? Math.floor(Math.random() * (providers.length - MAX_ANSWERED_PROVIDERS))
      : 0;
  const named = providers.slice(first, first + MAX_ANSWERED_PROVIDERS);
  const self = deps.self();
  if (deps.isOwnKey(key) && self.endpoints.length > 0) named.unshift(self.info);
  return encodeMessage({
    type: MessageType.GET_PROVIDERS,
    key: keyBytes,
    closerPeers: closerPeers(deps, sender, keyBytes),
    providerPeers: named,
  });
}

/** Names the node itself only when it was asked for it: that is how Go peers test a server before they trust it. */
function findNode(deps: AnswerDeps, sender: string, message: KadMessage): Buffer {
  const key = keyOf(message);
  const peers = closerPeers(deps, sender, key);
  const self = deps.self();
  if (binaryString(key) === self.id) peers.unshift(self.info);
  return encodeMessage({ type: MessageType.FIND_NODE, closerPeers: peers });
}

function closerPeers(deps: AnswerDeps, sender: string, key: Uint8Array): Uint8Array[] {
  return closest(deps.contacts(), kademliaIdOf(key), REPLICATION + 1)
    .filter((contact) => contact.id !== sender && contact.endpoints.length > 0)
    .slice(0, REPLICATION)
    .map((contact) => contact.info);
}

function keyOf(message: KadMessage): Uint8Array {
  const { key } = message;
  if (key === undefined || key.length === 0 || key.length > MAX_KEY_BYTES) {
    throw new SwarmError({ code: "SWARM_MESSAGE_INVALID", message: `key of ${key?.length ?? 0} bytes` });
  }
  return key;
}
