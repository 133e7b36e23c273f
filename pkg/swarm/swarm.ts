// SPDX-License-Identifier: Apache-2.0
import { networkInterfaces } from "node:os";
import { peerIdFromString } from "@libp2p/peer-id";
import { multiaddr } from "@multiformats/multiaddr";
import { createSemaphore, createTaskGroup, sleep, type TaskGroup } from "#async";
import type { Logger } from "#log";
import type { Router } from "#routing";
import { createAddressPolicy, parseRouterAddress } from "./address-policy.ts";
import { type AnnouncerOptions, createAnnouncer } from "./announcer.ts";
import { createJoining, type JoinOptions } from "./bootstrap/join.ts";
import type { BootstrapPeer, BootstrapSource } from "./bootstrap/source.ts";
import { type Contact, contactOf, type createContact, type IndexedContacts, idOf } from "./contact.ts";
import { createContactBook } from "./contact-book.ts";
import { unionOf } from "./contact-index.ts";
import { SwarmError } from "./errors.ts";
import { type Host, type HostOptions, MAX_CONNECTIONS, openHost } from "./host.ts";
import { openIdentity } from "./identity.ts";
import { formatEndpoint, parseEndpoint } from "./ip-address.ts";
import { createLookups, type LookupOptions } from "./lookup.ts";
import type { SwarmMetrics } from "./ports.ts";
import { type AnswerDeps, answer, type LastProvider } from "./protocol/answer.ts";
import { type ChannelOptions, createChannelPool } from "./protocol/channel.ts";
import { MessageType } from "./protocol/message.ts";
import { createProtocolServer, type ProtocolServerOptions } from "./protocol/server.ts";
import { createProviderStore, type ProviderStoreOptions } from "./provider-store.ts";
import { explore, search } from "./search.ts";

/** This node as a member of the swarm. Disposing leaves it. */
export interface Swarm extends Router, AsyncDisposable {
  /** Own peer id in text form (`12D3KooW...`). */
  readonly peerId: string;
  /** Nodes in the routing table. */
  peerCount(): number;
  /** Announced multiaddrs without `/p2p/`: `/ip4/10.0.0.1/tcp/5001`. */
  addresses(): string[];
}

export interface SwarmDeps {
  readonly logger: Logger;
  readonly metrics: SwarmMetrics;
  /** Where other nodes are found. Without any source this node waits to be dialled. */
  readonly bootstrap: readonly BootstrapSource[];
  /** Milliseconds, monotonic. Default `performance.now`. */
  readonly now?: () => number;
  /** In [0, 1). Default `Math.random`. */
  readonly random?: () => number;
  /** Connections and the routing table. Default: libp2p on TCP. */
  readonly openHost?: (options: HostOptions) => Promise<Host>;
  /** Makes a contact of what others name. Default: `createContact`, each time anew. */
  readonly createContact?: typeof createContact;
}

export interface SwarmOptions {
  /** `host:port` to listen on, see `parseRouterAddress`. */
  readonly routerAddress: string;
  /** Folder of the identity; undefined or empty for a new one with each start. */
  readonly dataDirectory: string | undefined;
  /** Ends the start, not the running swarm. */
  readonly signal: AbortSignal;
  readonly maxConnections?: number;
  readonly join?: JoinOptions;
  readonly announce?: AnnouncerOptions;
  readonly lookup?: LookupOptions;
  readonly channel?: ChannelOptions;
  readonly server?: ProtocolServerOptions;
  readonly providers?: ProviderStoreOptions;
}

/** Own addresses are asked for again after this time. */
const SELF_FRESH_MS = 5_000;
const SWEEP_INTERVAL_MS = 60_000;
/** A node that did not answer is pinged for this long before it leaves the table; its records are hidden meanwhile. */
const VERIFY_TIMEOUT_MS = 5_000;
/** Before a lost connection is made anew; when a busy machine loses many, all at once would make it busier. */
const VERIFY_DELAY_MS = 1_000;
/** In a table of more than this part of the connections a closed one is no sign that its node is gone. */
const CROWDED = 0.8;
const MAX_VERIFYING = 64;
const MAX_VERIFYING_AT_ONCE = 4;
/** How long a dialled bootstrap node may take to identify itself and enter the table. */
const ENTER_TIMEOUT_MS = 5_000;
/**
 * When many nodes join at the same time, or on a busy machine, one look around does not find all of them. It is repeated
 * after 2, 4, 8, ... seconds until less than a tenth of the nodes were news, and when the routing table has grown by half.
 */
const LOOK_AGAIN_MS = 2_000;
const MAX_LOOKS = 6;
/** Of a swarm of more than some hundred a part is looked at again: it tells whether there is news. */
const MAX_PARTS_AGAIN = 32;
const SETTLED = 0.1;
const GROWN = 1.5;
/** A node that joins asks for all its neighbours, not for the nearest few as a look-up does. */
const SELF_SEARCH = { parallelism: 10, resiliency: 20, slowAfterMs: 1_000, maxRequests: 60 } as const;

/**
 * Joins the swarm: opens the identity, listens, finds the first nodes, and from then on announces and looks up keys.
 * It resolves when this node can be dialled; whether it has found others is told by `ready`: true with nodes in the
 * routing table, and also when every bootstrap source has answered and knows nobody else, because the first node of a
 * cluster is complete on its own.
 * @throws SwarmError SWARM_ADDRESS_INVALID, SWARM_LISTEN_FAILED
 */
export async function openSwarm(deps: SwarmDeps, options: SwarmOptions): Promise<Swarm> {
  const { logger } = deps;
  options.signal.throwIfAborted();
  const now = deps.now ?? (() => performance.now());
  const random = deps.random ?? Math.random;
  const listen = parseRouterAddress(options.routerAddress);
  const policy = createAddressPolicy({ interfaces: networkInterfaces, now }, listen);
  const privateKey = await openIdentity(
    { logger },
    { dataDirectory: options.dataDirectory, signal: options.signal },
  );
  const maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
  await using opening = new AsyncDisposableStack();
  let closed = false;

  const store = createProviderStore({ now }, options.providers);
  const sweeper = setInterval(() => store.sweep(), SWEEP_INTERVAL_MS);
  sweeper.unref();
  opening.defer(() => clearInterval(sweeper));

  const lastProvider: LastProvider = { sender: "", encoded: new Uint8Array(0), info: undefined };
  const answerDeps: AnswerDeps = {
    self,
    contacts: () => host.table,
    isOwnKey: (key) => announcer.has(key),
    store,
    policy,
    last: lastProvider,
  };
  const server = createProtocolServer(
    { logger, now, answer: (sender, frame) => answer(answerDeps, sender, frame) },
    options.server,
  );

  const book = createContactBook({ now });
  /** Nodes that were heard of for the first time, and that did not answer: what is known of the swarm is not complete. */
  let surprises = 0;
  /** Set from the first look around to the last of a series. */
  let looking: AbortController | undefined;
  /** All of the key space was asked about once. */
  let hasLooked = false;
  /** Nodes in the routing table when this node looked around last. */
  let lookedAtPeers = 1;
  /** The routing table, then nodes that were only named. */
  const known = (): IndexedContacts => unionOf(host.table, book.contacts());
  function onLearned(contact: Contact): void {
    if (contact.id === host.self.id || host.table.get(contact.id) !== undefined) return;
    if (!book.add(contact)) return;
    surprises++;
    announcer.joined(contact);
  }
  function onSilent(contact: Contact): void {
    surprises++;
    book.remove(contact.id);
    verifySoon(contact);
  }

  /** Callers that wait until a node has entered the table, or until the table is empty. */
  const watchers = new Set<() => void>();
  const notify = (): void => watchers.forEach((watcher) => watcher());

  const host: Host = opening.use(
    await (deps.openHost ?? openHost)({
      privateKey,
      listen,
      policy,
      serve: (stream, connection) => server.serve(stream, connection),
      ...(options.maxConnections === undefined ? {} : { maxConnections: options.maxConnections }),
      events: {
        joined(contact) {
          logger.debug("node joined the routing table", { peer: contact.peerId.toString() });
          announcer.joined(contact);
          if (looking === undefined && peerCount() >= lookedAtPeers * GROWN) lookAround({ isAgain: true });
          notify();
        },
        left(contact) {
          logger.debug("node left the routing table", { peer: contact.peerId.toString() });
          book.remove(contact.id);
          announcer.left(contact);
          notify();
        },
        connected(peerId) {
          const id = idOf(peerId);
          store.setReachable(id, true);
          book.trust(id);
        },
        disconnected(peerId) {
          // Of so many nodes all cannot stay connected, and to dial one would end the connection to another.
          if (peerCount() > maxConnections * CROWDED) return;
          verifySoon(host.table.get(idOf(peerId)) ?? contactOf(peerId), VERIFY_DELAY_MS * (0.5 + random()));
        },
      },
    }),
  );

  const peerCount = (): number => host.table.size;

  let cachedSelf: { readonly contact: Contact; readonly readAtMs: number } | undefined;
  /** This node as others should see it. */
  function self(): Contact {
    if (cachedSelf === undefined || now() - cachedSelf.readAtMs > SELF_FRESH_MS) {
      cachedSelf = { contact: contactOf(host.self.peerId, host.endpoints()), readAtMs: now() };
    }
    return cachedSelf.contact;
  }

  const tasks: TaskGroup = createTaskGroup();
  /** Work beside the main loops: what fails in it is told and ends nothing else. */
  function background(name: string, task: (signal: AbortSignal) => Promise<void>): void {
    tasks.run(name, async (signal) => {
      try {
        await task(signal);
      } catch (err) {
        if (!signal.aborted) logger.error("background work of the router failed", { task: name, err });
      }
    });
  }

  const verifying = new Set<string>();
  const verifications = createSemaphore(MAX_VERIFYING_AT_ONCE);
  /** Looks after a node that fell silent; its records are hidden while it cannot be reached, so that nobody is sent to it. */
  function verifySoon(contact: Contact, delayMs = 0): void {
    if (closed || verifying.has(contact.id)) return;
    const isMember = host.table.get(contact.id) !== undefined || store.hasPeer(contact.id);
    store.setReachable(contact.id, false);
    if (verifying.size >= MAX_VERIFYING) return; // shown again when it connects
    verifying.add(contact.id);
    background("verify", async (signal) => {
      try {
        if (delayMs > 0) await sleep(delayMs, { signal });
        using _place = await verifications.acquire({ signal });
        const limited = AbortSignal.any([signal, AbortSignal.timeout(VERIFY_TIMEOUT_MS)]);
        const isAlive = isMember && (await host.verify(contact, { signal: limited }));
        if (signal.aborted) return;
        store.setReachable(contact.id, isAlive);
        if (!isAlive) await host.forget(contact);
      } finally {
        verifying.delete(contact.id);
      }
    });
  }

  const channels = createChannelPool(
    { openStream: (contact, streamOptions) => host.openStream(contact, streamOptions), now },
    options.channel,
  );
  const searchDeps = {
    client: channels,
    policy,
    contacts: known,
    contact: host.table.get,
    named: book.contact,
    ...(deps.createContact === undefined ? {} : { createContact: deps.createContact }),
    isDistrusted: book.isDistrusted,
    selfId: host.self.id,
    onLearned,
    onSilent,
  };
  const lookups = createLookups(
    { ...searchDeps, logger, store, now, resolved: deps.metrics.resolved },
    options.lookup,
  );
  const announcer = createAnnouncer(
    { logger, channels, contacts: known, trusted: () => host.table, self, now, random, onSilent },
    options.announce,
  );

  const joining = createJoining(
    {
      logger,
      sources: deps.bootstrap,
      random,
      isSelf: ({ id, addresses }) =>
        id === host.self.peerId.toString() || addresses.some((address) => isOwnAddress(address)),
      peerCount,
      untilFewer: (than, { signal }) => until(() => peerCount() < than, signal),
      connect: connectTo,
      onJoined: () => lookAround({ isAgain: hasLooked }),
    },
    options.join,
  );

  async function connectTo(peer: BootstrapPeer, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    const suffix = peer.id === undefined ? "" : `/p2p/${peer.id}`;
    const id = await host.connect(
      peer.addresses.map((address) => address + suffix),
      { signal },
    );
    const contact = contactOf(peerIdFromString(id));
    await until(
      () => host.table.get(contact.id) !== undefined,
      AbortSignal.any([signal, AbortSignal.timeout(ENTER_TIMEOUT_MS)]),
    );
    if (host.table.get(contact.id) === undefined)
      throw new SwarmError({ code: "SWARM_PEER_UNREACHABLE", message: `${id} is no member of the swarm` });
  }

  /** `isAgain`: after a while and at a part of the key space, because all of it was looked at before. */
  function lookAround({ isAgain }: { readonly isAgain: boolean }): void {
    if (closed) return;
    looking?.abort(); // begins anew
    const current = new AbortController();
    looking = current;
    background("look around", async (signal) => {
      await findOthers(isAgain, AbortSignal.any([signal, current.signal]));
      if (looking === current) looking = undefined;
    });
  }

  /** Asks for neighbours and about the key space, again and again until that brings little news. */
  async function findOthers(isAgain: boolean, signal: AbortSignal): Promise<void> {
    const key = host.self.peerId.toMultihash().bytes;
    const pause = (ms: number): Promise<void> => sleep(ms * (0.5 + random()), { signal }).catch(() => {}); // the loop looks at the signal
    if (isAgain) await pause(LOOK_AGAIN_MS);
    for (let looks = 1; looks <= MAX_LOOKS && !signal.aborted; looks++) {
      const surprisesBefore = surprises;
      lookedAtPeers = Math.max(peerCount(), 1);
      await search(searchDeps, { type: MessageType.FIND_NODE, key, signal }, SELF_SEARCH);
      const isWhole = !isAgain && looks === 1;
      await explore(searchDeps, {
        self: host.self,
        random,
        signal,
        ...(isWhole ? {} : { maxParts: MAX_PARTS_AGAIN }),
      });
      if (isWhole && !signal.aborted) hasLooked = true;
      if (surprises - surprisesBefore <= [...known()].length * SETTLED) return;
      await pause(LOOK_AGAIN_MS * 2 ** (looks - 1));
    }
  }

  /** Resolves when `holds`, at once or after a change of the routing table, or when the signal aborts. */
  async function until(holds: () => boolean, signal: AbortSignal): Promise<void> {
    if (holds() || signal.aborted) return;
    const done = Promise.withResolvers<void>();
    const watcher = (): void => {
      if (holds()) done.resolve();
    };
    watchers.add(watcher);
    signal.addEventListener("abort", () => done.resolve(), { once: true });
    await done.promise;
    watchers.delete(watcher);
  }

  function isOwnAddress(address: string): boolean {
    const endpoint = parseEndpoint(multiaddr(address).bytes);
    return endpoint !== undefined && policy.isOwn(endpoint);
  }

  deps.metrics.observe({
    peers: peerCount,
    providerRecords: () => store.recordCount,
    ownKeys: () => announcer.keyCount,
  });
  opening.use(server); // streams end before the connections that carry them, which would wait for them
  opening.use(channels);
  opening.use(lookups);
  opening.use(announcer);
  opening.use(tasks);
  opening.defer(() => {
    closed = true;
  });
  const selfWithId = (): string[] =>
    host.endpoints().map((endpoint) => `${formatEndpoint(endpoint)}/p2p/${host.self.peerId.toString()}`);
  for (const source of deps.bootstrap) {
    if (source.run === undefined) continue;
    const run = source.run.bind(source);
    background(`bootstrap source ${source.name}`, (signal) => run({ self: selfWithId }, { signal }));
  }
  tasks.run("join", (signal) => joining.run({ signal }));
  logger.info("router is listening", {
    peer: host.self.peerId.toString(),
    addresses: host.endpoints().map(formatEndpoint),
  });
  const running = opening.move();

  return {
    peerId: host.self.peerId.toString(),
    peerCount,
    addresses: () => host.endpoints().map(formatEndpoint),
    ready: () => !closed && (joining.isAlone || peerCount() > 0),
    lookup: (key, lookupOptions) => lookups.lookup(key, lookupOptions),
    async advertise(keys, { signal }) {
      signal.throwIfAborted();
      announcer.add(keys);
    },
    async withdraw(keys, { signal }) {
      signal.throwIfAborted();
      announcer.remove(keys);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
