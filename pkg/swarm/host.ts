// SPDX-License-Identifier: Apache-2.0
import { identify } from "@libp2p/identify";
import type { Connection, Ed25519PrivateKey, Libp2p, PeerId, Stream } from "@libp2p/interface";
import { type KadDHTComponents, kadDHT, passthroughMapper } from "@libp2p/kad-dht";
import { noise } from "@libp2p/noise";
import { peerIdFromPrivateKey } from "@libp2p/peer-id";
import { ping } from "@libp2p/ping";
import { tcp } from "@libp2p/tcp";
import { yamux } from "@libp2p/yamux";
import { type Multiaddr, multiaddr } from "@multiformats/multiaddr";
import { createLibp2p } from "libp2p";
import type { AddressPolicy, RouterAddress } from "./address-policy.ts";
import { type Contact, contactOf, idOf } from "./contact.ts";
import { type ContactIndex, createContactIndex } from "./contact-index.ts";
import { createCrowdLimit } from "./crowd-limit.ts";
import { SwarmError } from "./errors.ts";
import { type Endpoint, formatEndpoint, parseEndpoint } from "./ip-address.ts";
import { joinWrites, sparseWindowUpdates } from "./lean-connection.ts";
import { type LivenessOptions, watchLiveness } from "./liveness.ts";
import { tls } from "./tls/index.ts";

export type Security = "noise" | "tls";
/** Noise needs less memory when much is sent at a time; see docs/adr/0009. */
const SECURITY: readonly Security[] = ["noise", "tls"];
/** A peer that offers both, as Go does, goes on with Noise when there are so many. */
const MAX_TLS_CONNECTIONS = 64;

/** Spegel's DHT: the prefix `/spegel` and the protocol of libp2p's Kademlia. */
const KAD_PROTOCOL = "/spegel/kad/1.0.0";

/** The libp2p node: connections, identities, and the routing table of kad-dht. The messages are served and asked elsewhere in this package. */
export interface Host extends AsyncDisposable {
  readonly self: Contact;
  /** Where other nodes reach this one. */
  endpoints(): Endpoint[];
  /** The routing table, which changes by itself: nodes that were alive when they entered it. */
  readonly table: Omit<ContactIndex, "set" | "delete">;
  /** A stream of the protocol, over an existing connection or a new one. */
  openStream(contact: Contact, options: { readonly signal: AbortSignal }): Promise<Stream>;
  /** Connects to an address; the node there may have any id unless the address names one. Resolves with its id. */
  connect(addresses: readonly string[], options: { readonly signal: AbortSignal }): Promise<string>;
  /** Pings a node that left or failed, dialling it if need be; false when it is gone, and then it is out of the table and disconnected. */
  verify(contact: Contact, options: { readonly signal: AbortSignal }): Promise<boolean>;
  /** Drops what libp2p remembers of a node that is not connected: strangers who come and go must not pile up. */
  forget(contact: Contact): Promise<void>;
}

export interface HostEvents {
  /** A node entered the routing table. */
  joined(contact: Contact): void;
  /** A node left the routing table. */
  left(contact: Contact): void;
  /** A connection to a node opened or the last one closed. */
  connected(peer: PeerId): void;
  disconnected(peer: PeerId): void;
}

/** The part of kad-dht's routing table that is used here; its type declaration shows the size alone. */
interface RoutingTable extends EventTarget {
  /** Pings the node first; one that does not answer, or whose bucket is full, stays outside. */
  add(peer: PeerId, options: { readonly signal: AbortSignal }): Promise<void>;
  remove(peer: PeerId): Promise<void>;
}

export interface HostOptions {
  readonly privateKey: Ed25519PrivateKey;
  readonly listen: RouterAddress;
  readonly policy: AddressPolicy;
  /** Answers an inbound stream of the protocol. */
  readonly serve: (stream: Stream, connection: Connection) => void;
  readonly events: HostEvents;
  /** All connections. Default 500: a table of 20-node buckets rarely holds more, further ones are closed, least useful first. */
  readonly maxConnections?: number;
  /** What is offered, in the order in which it is proposed when dialling. Default Noise, then TLS. */
  readonly security?: readonly Security[];
  /** Default 64; with so many TLS is not offered any more. */
  readonly maxTlsConnections?: number;
  /** Default 30 s and 15 s. */
  readonly liveness?: LivenessOptions;
}

export const MAX_CONNECTIONS = 500;
/**
 * New connections from one IP address in a second. The stock value of 5 counts pods behind one address and a restarting
 * node as an attack; Go's limits of that kind keep IPv6 clusters within one /56 from forming at all.
 */
const MAX_NEW_CONNECTIONS_PER_SECOND = 100;
const MAX_PENDING_CONNECTIONS = 200;
const MAX_STREAMS_PER_CONNECTION = 64;
const DIAL_TIMEOUT_MS = 5_000;
/**
 * On a busy machine a few handshakes at a time end sooner than many, which would all time out and begin anew. So many
 * nodes may be gone without a word before a dial to a living one has to wait.
 */
const MAX_PARALLEL_DIALS = 24;
/** How soon a node is missed that is gone without a word; one that a look-up meets is found sooner, by `verify`. */
const LIVENESS = { intervalMs: 30_000, timeoutMs: 15_000 } as const;
/** kad-dht offers a connected node to the table once; on a busy machine its ping may come too late. Then it is offered again, after 1, 2, 4, ... seconds. */
const OFFER_INTERVAL_MS = 1_000;

/** @throws SwarmError SWARM_LISTEN_FAILED when the address cannot be listened on. */
export async function openHost(options: HostOptions): Promise<Host> {
  const { policy, events } = options;
  const self = contactOf(peerIdFromPrivateKey(options.privateKey));
  const table = createContactIndex();

  const encrypters = {
    noise: noise(),
    tls: tls({ maxConnections: options.maxTlsConnections ?? MAX_TLS_CONNECTIONS }),
  };
  const node = await createLibp2p({
    privateKey: options.privateKey,
    start: false,
    nodeInfo: { name: "registry-spegel", version: "1", userAgent: "registry-spegel" },
    addresses: {
      listen: listenAddresses(options.listen),
      announceFilter: (listening) => announce(policy, listening),
    },
    transports: [tcp({ maxConnections: MAX_CONNECTIONS * 2 })],
    connectionEncrypters: (options.security ?? SECURITY).map((each) => joinWrites(encrypters[each])),
    streamMuxers: [
      watchLiveness(
        sparseWindowUpdates(
          yamux({
            maxInboundStreams: MAX_STREAMS_PER_CONNECTION,
            maxOutboundStreams: MAX_STREAMS_PER_CONNECTION,
            enableKeepAlive: false, // it asks, but nothing follows from a missing answer
          }),
        ),
        options.liveness ?? LIVENESS,
      ),
    ],
    connectionManager: {
      maxConnections: options.maxConnections ?? MAX_CONNECTIONS,
      inboundConnectionThreshold: MAX_NEW_CONNECTIONS_PER_SECOND,
      maxIncomingPendingConnections: MAX_PENDING_CONNECTIONS,
      maxParallelDials: MAX_PARALLEL_DIALS,
      maxDialQueueLength: 500,
      maxPeerAddrsToDial: 8,
      dialTimeout: DIAL_TIMEOUT_MS,
      addressDialTimeout: 2_000,
      inboundUpgradeTimeout: DIAL_TIMEOUT_MS,
    },
    connectionMonitor: { enabled: false }, // see watchLiveness
    connectionGater: {
      ...createCrowdLimit({ connections: (): Connection[] => node.getConnections() }),
      denyDialMultiaddr: (address) => !mayDial(policy, address),
      filterMultiaddrForPeer: (peer, address) => peer.equals(self.peerId) || mayDial(policy, address),
    },
    services: {
      identify: identify(),
      ping: ping({ maxInboundStreams: 8, maxOutboundStreams: 8 }),
      dht: (components) =>
        kadDHT({
          protocol: KAD_PROTOCOL,
          clientMode: false,
          peerInfoMapper: passthroughMapper,
          allowQueryWithZeroPeers: true,
          alpha: 3,
          disjointPaths: 1,
          maxInboundStreams: 32,
          maxOutboundStreams: 32,
        })(withOwnServer(components as unknown as KadDHTComponents, options.serve)),
    },
  });

  const routingTable = (node.services.dht as unknown as { readonly routingTable: RoutingTable }).routingTable;
  routingTable.addEventListener("peer:add", (event) => {
    const contact = contactOf((event as CustomEvent<PeerId>).detail);
    table.set(contact);
    void describe(node, contact).then((described) => {
      if (table.get(contact.id) === undefined) return;
      table.set(described);
      events.joined(described);
    });
  });
  routingTable.addEventListener("peer:remove", (event) => {
    const contact = contactOf((event as CustomEvent<PeerId>).detail);
    if (table.delete(contact.id)) events.left(contact);
  });
  node.addEventListener("peer:update", (event) => {
    const known = table.get(idOf(event.detail.peer.id));
    if (known === undefined) return;
    const endpoints = usableEndpoints(
      policy,
      event.detail.peer.addresses.map((each) => each.multiaddr),
    );
    table.set(contactOf(known.peerId, endpoints));
  });
  node.addEventListener("peer:connect", (event) => events.connected(event.detail));
  node.addEventListener("peer:disconnect", (event) => events.disconnected(event.detail));

  /** For how many intervals each connected node has been missing in the table. */
  const offers = new Map<string, number>();
  const offering = setInterval(() => {
    const outside = new Map<string, PeerId>();
    for (const { remotePeer } of node.getConnections()) {
      const id = remotePeer.toString();
      if (table.get(idOf(remotePeer)) === undefined) outside.set(id, remotePeer);
    }
    for (const id of offers.keys()) if (!outside.has(id)) offers.delete(id);
    for (const [id, peerId] of outside) {
      const count = offers.get(id) ?? 0;
      offers.set(id, count + 1);
      // At first it may just be on its way.
      if (count > 0 && (count & (count - 1)) === 0) void offer(peerId);
    }
  }, OFFER_INTERVAL_MS);
  offering.unref();

  async function offer(peerId: PeerId): Promise<void> {
    try {
      const { protocols } = await node.peerStore.get(peerId);
      if (!protocols.includes(KAD_PROTOCOL)) return;
      await routingTable.add(peerId, { signal: AbortSignal.timeout(DIAL_TIMEOUT_MS) });
    } catch {
      // gone, or the node has stopped; it is offered again if it is still connected
    }
  }

  async function describe(of: Libp2p, contact: Contact): Promise<Contact> {
    try {
      const peer = await of.peerStore.get(contact.peerId);
      return contactOf(
        contact.peerId,
        usableEndpoints(
          policy,
          peer.addresses.map((each) => each.multiaddr),
        ),
      );
    } catch {
      return contact; // forgotten in the meantime; the next update brings its addresses
    }
  }

  try {
    await node.start();
  } catch (cause) {
    throw new SwarmError({ code: "SWARM_LISTEN_FAILED", message: "cannot start the router", cause });
  }

  return {
    self,
    endpoints: () =>
      node
        .getMultiaddrs()
        .map((address) => parseEndpoint(address.bytes))
        .filter((endpoint) => endpoint !== undefined),
    table,
    async openStream(contact, { signal }) {
      const [open] = node.getConnections(contact.peerId).filter((connection) => connection.status === "open");
      if (open !== undefined) return open.newStream(KAD_PROTOCOL, { signal });
      return node.dialProtocol(dialTarget(contact), KAD_PROTOCOL, { signal });
    },
    async connect(addresses, { signal }) {
      const connection = await node.dial(
        addresses.map((address) => multiaddr(address)),
        { signal },
      );
      return connection.remotePeer.toString();
    },
    async verify(contact, { signal }) {
      try {
        await node.services.ping.ping(contact.peerId, { signal });
        return true;
      } catch (err) {
        await routingTable.remove(contact.peerId);
        for (const connection of node.getConnections(contact.peerId)) connection.abort(err as Error);
        return false;
      }
    },
    async forget(contact) {
      if (node.getConnections(contact.peerId).length === 0) await node.peerStore.delete(contact.peerId);
    },
    async [Symbol.asyncDispose]() {
      clearInterval(offering);
      await node.stop();
    },
  };
}

/** kad-dht keeps the routing table; what it would register to answer the protocol is replaced before it is ever used. */
function withOwnServer(components: KadDHTComponents, serve: HostOptions["serve"]): KadDHTComponents {
  const registrar = new Proxy(components.registrar, {
    get(target, property) {
      if (property === "handle") {
        const handle: typeof target.handle = (protocol, _stock, settings) =>
          target.handle(protocol, serve, settings);
        return handle;
      }
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return {
    peerId: components.peerId,
    privateKey: components.privateKey,
    registrar,
    addressManager: components.addressManager,
    peerStore: components.peerStore,
    connectionManager: components.connectionManager,
    datastore: components.datastore,
    events: components.events,
    logger: components.logger,
    ping: components.ping,
  };
}

function listenAddresses(listen: RouterAddress): string[] {
  const ips = listen.ip === undefined ? ["::", "0.0.0.0"] : [listen.ip];
  return ips.map((ip) => formatEndpoint({ ip, port: listen.port }));
}

function announce(policy: AddressPolicy, listening: readonly Multiaddr[]): Multiaddr[] {
  const endpoints = listening
    .map((address) => parseEndpoint(address.bytes))
    .filter((endpoint) => endpoint !== undefined);
  return policy.announced(endpoints).map((endpoint) => multiaddr(formatEndpoint(endpoint)));
}

function usableEndpoints(policy: AddressPolicy, addresses: readonly Multiaddr[]): Endpoint[] {
  return addresses
    .map((address) => parseEndpoint(address.bytes))
    .filter(
      (endpoint) => endpoint !== undefined && policy.isUsable(endpoint) && !policy.isOwn(endpoint),
    ) as Endpoint[];
}

/** Names are dialled for bootstrap peers that an operator wrote down; everything else must be an address where another node can be. */
function mayDial(policy: AddressPolicy, address: Multiaddr): boolean {
  const endpoint = parseEndpoint(address.bytes);
  if (endpoint !== undefined) return policy.isUsable(endpoint) && !policy.isOwn(endpoint);
  return address.getComponents()[0]?.name.startsWith("dns") === true;
}

function dialTarget(contact: Contact): PeerId | Multiaddr[] {
  if (contact.endpoints.length === 0) return contact.peerId;
  return contact.endpoints.map((endpoint) =>
    multiaddr(`${formatEndpoint(endpoint)}/p2p/${contact.peerId.toString()}`),
  );
}
