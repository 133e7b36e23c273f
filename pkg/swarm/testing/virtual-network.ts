// SPDX-License-Identifier: Apache-2.0
import type { Connection, Stream } from "@libp2p/interface";
import { multiaddr } from "@multiformats/multiaddr";
import { type Contact, contactOf, createContact } from "../contact.ts";
import { createContactIndex } from "../contact-index.ts";
import { SwarmError } from "../errors.ts";
import type { Host, HostOptions } from "../host.ts";
import { type Endpoint, parseEndpoint } from "../ip-address.ts";
import { binaryBytes, binaryString } from "../key.ts";
import { createChannelPool } from "../protocol/channel.ts";
import { MessageType } from "../protocol/message.ts";
import { search } from "../search.ts";
import type { VirtualClock } from "./virtual-clock.ts";
import { contactNumber } from "./virtual-swarm.ts";

/** A network in memory: hosts on it stand in for libp2p's, everything above them is the real thing. */
export interface VirtualNetwork {
  /** To be given to `openSwarm`; the node gets an identity made of its address. */
  openHost(options: HostOptions): Promise<Host>;
  /** To be given to `openSwarm` as well: all nodes share one contact of each, which saves a copy for each pair of nodes. */
  readonly createContact: typeof createContact;
  /** The node vanishes: nothing is told to anybody. */
  crash(ip: string): void;
  /** Cuts the network: only nodes for which `groupOf` gives the same can reach each other. Undefined mends it. */
  partition(groupOf: ((ip: string) => number) | undefined): void;
  readonly traffic: Traffic;
}

/**
 * What a message is about: look-ups, records and their renewal, who else there is, whether a node belongs into the table,
 * whether a silent connection is alive, the begin of a stream.
 */
export const MESSAGE_KINDS = ["look-ups", "records", "nodes", "checks", "signs of life", "streams"] as const;
export type MessageKind = (typeof MESSAGE_KINDS)[number];

export interface Traffic {
  /** Writes to streams; one carries one question, one answer, or a batch of records. */
  messages: Record<MessageKind, number>;
  /** Of these, with what yamux, Noise, TCP and IP add to each, and for each connection what its handshakes take. */
  bytes: number;
  connections: number;
}

export interface VirtualNetworkOptions {
  readonly roundTripMs: number;
}

/** yamux 12, Noise 18, TCP and IP 52. */
const OVERHEAD_BYTES = 82;
/** TCP, Noise XX, early muxer negotiation, identify both ways; measured on loopback. */
const CONNECTION_BYTES = 3_200;
/** The name of the protocol, negotiated with the first message. */
const STREAM_BYTES = 30;
const PING_BYTES = 32;
const CONNECTION_ROUND_TRIPS = 3;
const DIAL_TIMEOUT_MS = 2_000;
const MAX_CONNECTIONS = 500;
/** As kad-dht: buckets of 20 for each prefix of at most six bits, the eldest three are pinged before one is replaced. */
const BUCKET_SIZE = 20;
const MAX_PREFIX_BITS = 6;
const PINGED_ELDEST = 3;
const PING_AGAIN_MS = 600_000;
const PING_TIMEOUT_MS = 3_000;
const VERIFY_TIMEOUT_MS = 5_000;
/** As kad-dht: the own neighbourhood and the prefixes are looked at again. */
const REFRESH_INTERVAL_MS = 300_000;
const LIVENESS_INTERVAL_MS = 30_000;
const LIVENESS_TIMEOUT_MS = 15_000;

interface Link {
  readonly a: VirtualHost;
  readonly b: VirtualHost;
  readonly streams: Set<VirtualStream>;
  /** Whether something arrived on this side since it looked last. */
  isHeardByA: boolean;
  isHeardByB: boolean;
}

interface VirtualHost {
  readonly contact: Contact;
  readonly endpoint: Endpoint;
  readonly options: HostOptions;
  readonly links: Map<VirtualHost, Link>;
  isAlive: boolean;
  offer(other: VirtualHost): void;
  unlinked(other: VirtualHost): void;
}

export function createVirtualNetwork(clock: VirtualClock, options: VirtualNetworkOptions): VirtualNetwork {
  const oneWayMs = options.roundTripMs / 2;
  const byAddress = new Map<string, VirtualHost>();
  const byId = new Map<string, VirtualHost>();
  const traffic: Traffic = {
    messages: { "look-ups": 0, records: 0, nodes: 0, checks: 0, "signs of life": 0, streams: 0 },
    bytes: 0,
    connections: 0,
  };
  let groupOf: ((ip: string) => number) | undefined;
  let identities = 0;

  const canReach = (from: VirtualHost, to: VirtualHost): boolean =>
    from.isAlive &&
    to.isAlive &&
    (groupOf === undefined || groupOf(from.endpoint.ip) === groupOf(to.endpoint.ip));

  /** Something on its way to a node: it arrives, or nobody hears of it again. */
  function transmit(from: VirtualHost, to: VirtualHost, arrive: () => void): void {
    clock.after(oneWayMs, () => {
      if (!canReach(from, to)) return;
      const open = from.links.get(to);
      if (open?.a === to) open.isHeardByA = true;
      else if (open !== undefined) open.isHeardByB = true;
      arrive();
    });
  }

  function wait(ms: number): Promise<void> {
    return new Promise((resolve) => clock.after(ms, resolve));
  }

  async function link(from: VirtualHost, to: VirtualHost | undefined): Promise<Link> {
    const known = to && from.links.get(to);
    if (known !== undefined) return known;
    if (to === undefined || !canReach(from, to)) {
      await wait(DIAL_TIMEOUT_MS);
      throw new SwarmError({ code: "SWARM_PEER_UNREACHABLE", message: "dial timed out" });
    }
    await wait(CONNECTION_ROUND_TRIPS * options.roundTripMs);
    const meanwhile = from.links.get(to);
    if (meanwhile !== undefined) return meanwhile;
    if (!canReach(from, to)) throw new SwarmError({ code: "SWARM_PEER_UNREACHABLE", message: "dial broke" });
    const made: Link = { a: from, b: to, streams: new Set(), isHeardByA: true, isHeardByB: true };
    from.links.set(to, made);
    to.links.set(from, made);
    traffic.connections++;
    traffic.bytes += CONNECTION_BYTES;
    from.options.events.connected(to.contact.peerId);
    to.options.events.connected(from.contact.peerId);
    // Identify takes a round trip, then each offers the other to its routing table.
    clock.after(options.roundTripMs, () => from.offer(to));
    clock.after(options.roundTripMs, () => to.offer(from));
    for (const host of [from, to]) {
      if (host.links.size <= (host.options.maxConnections ?? MAX_CONNECTIONS)) continue;
      const [eldest] = host.links.values();
      if (eldest !== undefined) unlink(eldest, host);
    }
    return made;
  }

  /** Ends a connection on the side of `by` now and on the other side when it hears of it. */
  function unlink(ended: Link, by: VirtualHost): void {
    const other = ended.a === by ? ended.b : ended.a;
    if (by.links.get(other) !== ended) return;
    by.links.delete(other);
    for (const stream of ended.streams) if (stream.host === by) stream.end();
    by.unlinked(other);
    transmit(by, other, () => unlink(ended, other));
  }

  /** libp2p's ping, over a stream of its own. True when the answer came in time. */
  async function ping(from: VirtualHost, to: VirtualHost | undefined, timeoutMs: number): Promise<boolean> {
    const result = Promise.withResolvers<boolean>();
    const timer = setTimeout(result.resolve, timeoutMs, false);
    link(from, to).then(
      (connection) => {
        count("streams", STREAM_BYTES);
        echo(connection, from, "checks", PING_BYTES, () => result.resolve(true));
      },
      () => result.resolve(false),
    );
    const isAnswered = await result.promise;
    clearTimeout(timer);
    return isAnswered;
  }

  /** A message to the other side, and the same back. */
  function echo(over: Link, from: VirtualHost, kind: MessageKind, bytes: number, heard: () => void): void {
    const other = over.a === from ? over.b : over.a;
    count(kind, bytes);
    transmit(from, other, () => {
      count(kind, bytes);
      transmit(other, from, heard);
    });
  }

  function count(kind: MessageKind, bytes: number): void {
    traffic.messages[kind]++;
    traffic.bytes += bytes + OVERHEAD_BYTES;
  }

  async function openStream(from: VirtualHost, to: VirtualHost | undefined): Promise<Stream> {
    const connection = await link(from, to);
    const other = connection.a === from ? connection.b : connection.a;
    // The newest use goes last: the eldest is the first to be closed.
    from.links.delete(other);
    from.links.set(other, connection);
    const near = new VirtualStream(from, connection);
    const far = new VirtualStream(other, connection);
    near.connect(far, { transmit, count });
    far.connect(near, { transmit, count });
    count("streams", STREAM_BYTES);
    transmit(from, other, () =>
      other.options.serve(
        far as unknown as Stream,
        { remotePeer: from.contact.peerId } as unknown as Connection,
      ),
    );
    return near as unknown as Stream;
  }

  function openHost(hostOptions: HostOptions): Host {
    const { events, policy } = hostOptions;
    const endpoint = { ip: hostOptions.listen.ip ?? "10.255.255.254", port: hostOptions.listen.port };
    const { peerId } = contactNumber(1_000_000 + identities++);
    const contact = contactOf(peerId, [endpoint]);
    const buckets = createBuckets(clock, isSilent);
    const timers: NodeJS.Timeout[] = [];
    const host: VirtualHost = {
      contact,
      endpoint,
      options: hostOptions,
      links: new Map(),
      isAlive: true,
      offer: (other) => void offer(other),
      unlinked: (other) => events.disconnected(other.contact.peerId),
    };

    async function offer(other: VirtualHost): Promise<void> {
      if (host.isAlive && (await buckets.add(other.contact))) events.joined(other.contact);
    }

    async function isSilent(other: Contact): Promise<boolean> {
      if (await ping(host, byId.get(other.id), PING_TIMEOUT_MS)) return false;
      remove(other);
      return true;
    }

    function remove(other: Contact): void {
      if (buckets.remove(other)) events.left(other);
    }

    const channels = createChannelPool({
      openStream: (to) => openStream(host, byId.get(to.id)),
      now: clock.now,
    });
    const refreshDeps = {
      client: channels,
      policy,
      contacts: () => buckets.contacts,
      selfId: contact.id,
      onSilent: () => {},
    };
    async function refresh(): Promise<void> {
      const targets = [binaryBytes(contact.id), ...Array.from({ length: 3 }, randomTarget)];
      for (const key of targets) {
        await search(refreshDeps, { type: MessageType.FIND_NODE, key, signal: AbortSignal.timeout(10_000) });
      }
    }
    timers.push(setInterval(() => void refresh(), REFRESH_INTERVAL_MS * (0.9 + Math.random() / 5)));
    timers.push(
      setInterval(
        () => {
          for (const each of host.links.values()) watch(each);
        },
        LIVENESS_INTERVAL_MS * (0.8 + 0.4 * Math.random()),
      ),
    );

    /** As `watchLiveness`: a connection that stays silent is ended. */
    function watch(each: Link): void {
      const isA = each.a === host;
      const isHeard = isA ? each.isHeardByA : each.isHeardByB;
      if (isA) each.isHeardByA = false;
      else each.isHeardByB = false;
      if (isHeard) return;
      const timer = setTimeout(() => unlink(each, host), LIVENESS_TIMEOUT_MS);
      echo(each, host, "signs of life", 0, () => clearTimeout(timer));
    }

    byAddress.set(`${endpoint.ip}:${endpoint.port}`, host);
    byId.set(contact.id, host);

    return {
      self: contact,
      endpoints: () => [endpoint],
      table: buckets.contacts,
      openStream: (to) => openStream(host, byId.get(to.id)),
      async connect(addresses) {
        for (const text of addresses) {
          const target = parseEndpoint(multiaddr(text).bytes);
          const there = target && byAddress.get(`${target.ip}:${target.port}`);
          await link(host, there);
          if (there !== undefined) return there.contact.peerId.toString();
        }
        throw new SwarmError({ code: "SWARM_PEER_UNREACHABLE", message: "no address" });
      },
      async verify(other) {
        if (await ping(host, byId.get(other.id), VERIFY_TIMEOUT_MS)) return true;
        remove(other);
        const target = byId.get(other.id);
        const open = target && host.links.get(target);
        if (open !== undefined) unlink(open, host);
        return false;
      },
      forget: async () => {},
      async [Symbol.asyncDispose]() {
        timers.forEach(clearInterval);
        channels[Symbol.dispose]();
        for (const each of [...host.links.values()]) unlink(each, host);
        // What was said last is still heard; then the node is gone.
        clock.after(oneWayMs * 2, () => bury(host));
      },
    };
  }

  function bury(host: VirtualHost): void {
    host.isAlive = false;
    const address = `${host.endpoint.ip}:${host.endpoint.port}`;
    if (byAddress.get(address) === host) byAddress.delete(address);
  }

  return {
    openHost: async (hostOptions) => openHost(hostOptions),
    crash(ip) {
      for (const host of byAddress.values()) if (host.endpoint.ip === ip) bury(host);
    },
    partition(groups) {
      groupOf = groups;
    },
    traffic,
    createContact(multihash, endpoints = []) {
      const known = byId.get(binaryString(multihash));
      const [endpoint] = endpoints;
      const isSame =
        endpoint?.ip === known?.endpoint.ip &&
        endpoint?.port === known?.endpoint.port &&
        endpoints.length === 1;
      return known !== undefined && isSame ? known.contact : createContact(multihash, endpoints);
    },
  };
}

function randomTarget(): Buffer {
  return Buffer.from(Array.from({ length: 34 }, () => Math.floor(Math.random() * 256)));
}

interface Buckets {
  readonly contacts: Host["table"];
  add(contact: Contact): Promise<boolean>;
  remove(contact: Contact): boolean;
}

interface Bucket {
  readonly bits: number;
  members: { readonly contact: Contact; pingedAtMs: number }[];
  /** No member is pinged again before this time. */
  quietUntilMs: number;
}

/**
 * The routing table of kad-dht: a bucket is split until its prefix has six bits. A node is pinged before it gets a free
 * place; in a full bucket the eldest are pinged instead.
 */
function createBuckets(clock: VirtualClock, isSilent: (contact: Contact) => Promise<boolean>): Buckets {
  const contacts = createContactIndex();
  const adding = new Set<string>();
  const whole: Bucket = { bits: 0, members: [], quietUntilMs: 0 };
  /** The bucket of each longest prefix. */
  const buckets = Array.from({ length: 2 ** MAX_PREFIX_BITS }, () => whole);
  const placeOf = (contact: Contact): number => contact.high >>> (32 - MAX_PREFIX_BITS);
  const bucketOf = (contact: Contact): Bucket => buckets[placeOf(contact)] as Bucket;

  function split(bucket: Bucket, place: number): void {
    const bits = bucket.bits + 1;
    const width = 2 ** (MAX_PREFIX_BITS - bits);
    const first = place - (place % (2 * width));
    for (const from of [first, first + width]) {
      const members = bucket.members.filter(({ contact }) => {
        const other = placeOf(contact);
        return other >= from && other < from + width;
      });
      buckets.fill({ bits, members, quietUntilMs: 0 }, from, from + width);
    }
  }

  async function add(contact: Contact, isAlive = false): Promise<boolean> {
    if (contacts.get(contact.id) !== undefined) return false;
    const bucket = bucketOf(contact);
    if (bucket.members.length < BUCKET_SIZE) {
      if (!isAlive) return !(await isSilent(contact)) && add(contact, true);
      bucket.members.push({ contact, pingedAtMs: clock.now() });
      contacts.set(contact);
      return true;
    }
    if (bucket.bits < MAX_PREFIX_BITS) {
      split(bucket, placeOf(contact));
      return add(contact, isAlive);
    }
    if (clock.now() < bucket.quietUntilMs) return false;
    const eldest = bucket.members
      .filter(({ pingedAtMs }) => clock.now() - pingedAtMs > PING_AGAIN_MS)
      .slice(0, PINGED_ELDEST);
    let hasRoom = false;
    for (const member of eldest) {
      member.pingedAtMs = clock.now();
      if (await isSilent(member.contact)) hasRoom = true;
    }
    bucket.quietUntilMs = Math.min(...bucket.members.map(({ pingedAtMs }) => pingedAtMs)) + PING_AGAIN_MS;
    return hasRoom && add(contact, isAlive);
  }

  return {
    contacts,
    async add(contact) {
      if (adding.has(contact.id)) return false;
      adding.add(contact.id);
      const isAdded = await add(contact);
      adding.delete(contact.id);
      return isAdded;
    },
    remove(contact) {
      if (!contacts.delete(contact.id)) return false;
      const bucket = bucketOf(contact);
      bucket.members = bucket.members.filter((member) => member.contact.id !== contact.id);
      return true;
    },
  };
}

interface Wire {
  transmit(from: VirtualHost, to: VirtualHost, arrive: () => void): void;
  count(kind: MessageKind, bytes: number): void;
}

/** By the type in the first of the frames. */
function kindOf(frames: Uint8Array): MessageKind {
  let at = 0;
  while (((frames[at] ?? 0) & 0x80) !== 0) at++; // the length
  const type = frames[at + 2];
  if (type === MessageType.GET_PROVIDERS) return "look-ups";
  if (type === MessageType.FIND_NODE) return "nodes";
  return "records"; // ADD_PROVIDER, and the PING that asks whether it was read
}

type Listener = (event: { readonly data: Uint8Array }) => void;

const NO_BYTES = new Uint8Array(0);

/** One end of a stream: as much of libp2p's as the channels and the server use. */
class VirtualStream {
  readonly host: VirtualHost;
  status: "open" | "closed" = "open";
  readStatus = "readable";
  private readonly link: Link;
  /** Types and listeners in turn: there are few of them, and a great many streams. */
  private readonly listeners: (string | Listener)[] = [];
  /** What came while it was paused. */
  private held: Uint8Array[] | undefined;
  private far: VirtualStream | undefined;
  private wire: Wire | undefined;
  private isWriteClosed = false;
  private isFarWriteClosed = false;

  constructor(host: VirtualHost, link: Link) {
    this.host = host;
    this.link = link;
    link.streams.add(this);
  }

  connect(far: VirtualStream, wire: Wire): void {
    this.far = far;
    this.wire = wire;
  }

  addEventListener(type: string, listener: Listener): void {
    this.listeners.push(type, listener);
  }

  send(bytes: Uint8Array): boolean {
    if (this.status !== "open" || this.isWriteClosed) throw new Error("stream is closed");
    this.wire?.count(kindOf(bytes), bytes.length);
    this.toFar((far) => far.receive(bytes));
    return true;
  }

  pause(): void {
    this.readStatus = "paused";
  }

  resume(): void {
    this.readStatus = "readable";
    const { held = [] } = this;
    this.held = undefined;
    for (const bytes of held) this.receive(bytes);
  }

  abort(_error: Error): void {
    if (this.status === "closed") return;
    this.end();
    this.toFar((far) => far.end());
  }

  async close(): Promise<void> {
    if (this.status === "closed" || this.isWriteClosed) return;
    this.isWriteClosed = true;
    this.toFar((far) => far.endOfInput());
    if (this.isFarWriteClosed) this.end();
  }

  /** The stream is over on this side. */
  end(): void {
    if (this.status === "closed") return;
    this.status = "closed";
    this.link.streams.delete(this);
    this.emit("close");
  }

  private receive(bytes: Uint8Array): void {
    if (this.status === "closed") return;
    if (this.readStatus !== "paused") this.emit("message", bytes);
    else if (this.held === undefined) this.held = [bytes];
    else this.held.push(bytes);
  }

  private endOfInput(): void {
    if (this.status === "closed") return;
    this.isFarWriteClosed = true;
    this.emit("remoteCloseWrite");
    if (this.isWriteClosed) this.end();
  }

  private toFar(action: (far: VirtualStream) => void): void {
    const { far } = this;
    if (far !== undefined) this.wire?.transmit(this.host, far.host, () => action(far));
  }

  private emit(type: string, data: Uint8Array = NO_BYTES): void {
    const { listeners } = this;
    const event = { data };
    for (let i = 0; i < listeners.length; i += 2)
      if (listeners[i] === type) (listeners[i + 1] as Listener)(event);
  }
}
