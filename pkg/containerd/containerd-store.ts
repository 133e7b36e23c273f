// SPDX-License-Identifier: Apache-2.0

import { ContentCreate, ContentDelete, type Envelope, versionService } from "#api/containerd";
import { createBackoff, createTaskGroup, sleep } from "#async";
import type { Logger } from "#log";
import type { Digest } from "#oci";
import {
  type ContentEntry,
  type ContentOrigin,
  type ContentStore,
  createChangeFeed,
  mergeOrigin,
} from "#store";
import { createContainerdClient } from "./client.ts";
import { originOfName } from "./content-labels.ts";
import { createContents, type ListedContent } from "./contents.ts";
import { createImageWalk, type Walk } from "./image-walk.ts";
import { createImages } from "./images.ts";
import { createNewContent } from "./new-content.ts";
import { followEvents } from "./subscription.ts";

const MAX_LOGGED_NAMES = 1000;
const RETRY = { initialMs: 100, maxMs: 5000 } as const;
const DISCARDING =
  "containerd discarded the layers of images after it had unpacked them; this node cannot share them. " +
  "Set discard_unpacked_layers = false in containerd's configuration, " +
  'under [plugins."io.containerd.grpc.v1.cri".containerd] for containerd 1.x, ' +
  'under [plugins."io.containerd.cri.v1.images"] for 2.x, and restart containerd. ' +
  "Images that are there already are shared after they have been removed and pulled again.";

export interface ContainerdStoreOptions {
  /** containerd's gRPC socket, an absolute path. */
  readonly socketPath: string;
  /** Content and names of other namespaces do not exist here; at least one. */
  readonly namespaces: readonly string[];
  /** containerd's content root, the folder with `blobs`; empty: containerd is asked for it. */
  readonly contentPath: string;
  /** Limit of one question to containerd; default 2 s. */
  readonly callTimeoutMs?: number;
  /** Limit of listing all images or all content; default 20 s. */
  readonly listTimeoutMs?: number;
  /** How often `changed` is given without an event, since garbage collection sends none; default 60 s. */
  readonly refreshIntervalMs?: number;
  /** How long after the last image event `changed` is given once more, for what was collected by then; default 3 s. */
  readonly collectedAfterMs?: number;
  /** How often containerd is asked for a sign of life; default 5 s. */
  readonly probeIntervalMs?: number;
}

export interface ContainerdStore extends ContentStore, AsyncDisposable {
  /** True while containerd answers and its events are followed. */
  connected(): boolean;
  /** Names of the last inventory that are no image references; they are neither resolved to peers nor advertised. */
  skippedNames(): number;
  /** Images of the last inventory whose layers containerd discarded after it had unpacked them. */
  imagesWithoutLayers(): number;
}

/**
 * Opens containerd's content as a store, read-only: containerd answers what is there, the bytes come from its files.
 *
 * containerd may be absent, restart or hang; the store stays and finds it again. Works with 1.6, 1.7 and 2.x: 1.x tells
 * of images only, 2.x of each blob, so that content is findable while the image is still being pulled.
 *
 * @throws StoreError STORE_UNAVAILABLE when the socket path is impossible
 */
export function openContainerdStore(
  deps: { readonly log: Logger },
  options: ContainerdStoreOptions,
): ContainerdStore {
  const { log } = deps;
  const { namespaces, contentPath, refreshIntervalMs = 60_000, probeIntervalMs = 5000 } = options;
  const { callTimeoutMs = 2000, listTimeoutMs = 20_000, collectedAfterMs = 3000 } = options;
  const client = createContainerdClient({
    socketPath: options.socketPath,
    callTimeoutMs,
    maxMessageBytes: 16 * 1024 * 1024,
  });
  const contents = createContents({ client, log }, { namespaces, contentPath, listTimeoutMs });
  const images = createImages(client, { namespaces, listTimeoutMs });
  const walk = createImageWalk(contents.openListed);
  const feed = createChangeFeed();
  const tasks = createTaskGroup();
  const newContent = createNewContent({
    contents,
    tasks,
    report: (content) => feed.publish({ kind: "added", content }),
    giveUp: changed,
  });
  const loggedNames = new Set<string>();
  let skippedNames = 0;
  let imagesWithoutLayers = 0;
  let toldOfDiscarding = false;
  let collectedMs: number | undefined;
  let subscribed = false;
  let answering = false;
  let complained = false;

  function changed(): void {
    feed.publish({ kind: "changed" });
  }

  function onSubscribed(): void {
    subscribed = true;
    answering = true;
    complained = false;
    toldOfDiscarding = false; // containerd reads its configuration when it starts
    contents.forget();
    log.info("connected to containerd", { socket: options.socketPath });
    changed();
  }

  function onEvent({ topic, event }: Envelope): void {
    const payload = event?.value ?? Buffer.alloc(0);
    if (topic === "/content/create" && newContent.offer(ContentCreate.decode(payload).digest)) return;
    if (topic === "/content/delete") contents.forget(ContentDelete.decode(payload).digest);
    changed();
    if (topic.startsWith("/images/")) expectCollection();
  }

  // containerd collects garbage soon after images come and go, and sends no event for the content it removes.
  function expectCollection(): void {
    const isExpected = collectedMs !== undefined;
    collectedMs = performance.now() + collectedAfterMs;
    if (!isExpected) tasks.run("list after a collection", listAfterCollection);
  }

  async function listAfterCollection(signal: AbortSignal): Promise<void> {
    for (;;) {
      const leftMs = (collectedMs ?? 0) - performance.now();
      if (leftMs <= 0) break;
      await sleep(leftMs, { signal });
    }
    collectedMs = undefined;
    changed();
  }

  async function keepSubscribed(signal: AbortSignal): Promise<void> {
    const backoff = createBackoff(RETRY);
    for (;;) {
      try {
        await followEvents(client, namespaces, { onSubscribed, onEvent: guarded(onEvent) }, { signal });
      } catch (error) {
        signal.throwIfAborted();
        if (subscribed) backoff.reset();
        subscribed = false;
        if (!complained) log.warn("containerd is not there", { socket: options.socketPath, err: error });
        complained = true;
      }
      await sleep(backoff.next(), { signal });
    }
  }

  // A stream of a containerd that hangs stays open and silent.
  async function probe(signal: AbortSignal): Promise<void> {
    for (;;) {
      await sleep(probeIntervalMs, { signal });
      if (!subscribed) continue;
      const answered = await client.call(versionService.version, {}, { signal }).then(
        () => true,
        () => false,
      );
      if (answered !== answering)
        log.warn(answered ? "containerd answers again" : "containerd does not answer");
      if (answered && !answering) changed();
      answering = answered;
    }
  }

  async function refresh(signal: AbortSignal): Promise<void> {
    for (;;) {
      await sleep(refreshIntervalMs, { signal });
      if (subscribed) changed();
    }
  }

  // An event that cannot be decoded says at least that something happened.
  function guarded(handle: (event: Envelope) => void): (event: Envelope) => void {
    return (event) => {
      try {
        handle(event);
      } catch (error) {
        log.debug("malformed containerd event", { topic: event.topic.slice(0, 100), err: error });
        changed();
      }
    };
  }

  function noteSkipped(names: readonly string[]): void {
    skippedNames = names.length;
    for (const name of names) {
      if (loggedNames.has(name) || loggedNames.size >= MAX_LOGGED_NAMES) continue;
      loggedNames.add(name);
      log.info("image name is no reference and is skipped", { name: name.slice(0, 300) });
    }
  }

  // Nothing says how containerd 2.x is configured, and CRI's status only how 1.x is; what it did says it for all.
  async function noteDiscarded(
    listed: ReadonlyMap<Digest, ListedContent>,
    walking: Walk,
    call: { readonly signal: AbortSignal },
  ): Promise<void> {
    let count = 0;
    for (const [digest, { keptConfig }] of listed) {
      if (keptConfig !== undefined && (await walking.lacksLayers(digest, keptConfig, call))) count++;
    }
    imagesWithoutLayers = count;
    if (count === 0 || toldOfDiscarding) return;
    toldOfDiscarding = true;
    log.warn(DISCARDING, { images: count });
  }

  // Imported content has no source label: its image's name tells where it would come from.
  async function nameOrigins(
    listed: ReadonlyMap<Digest, ListedContent>,
    named: readonly { readonly name: string; readonly digest: Digest }[],
    walking: Walk,
    call: { readonly signal: AbortSignal },
  ): Promise<ReadonlyMap<Digest, readonly ContentOrigin[]>> {
    const origins = new Map<Digest, readonly ContentOrigin[]>();
    if ([...listed.values()].every((each) => each.origins.length > 0)) return origins;
    for (const { name, digest } of named) {
      call.signal.throwIfAborted();
      const origin = originOfName(name);
      for (const reached of await walking.reach(digest, call)) {
        if (listed.get(reached)?.origins.length === 0) {
          origins.set(reached, mergeOrigin(origins.get(reached) ?? [], origin));
        }
      }
    }
    return origins;
  }

  tasks.run("follow containerd", keepSubscribed);
  tasks.run("probe containerd", probe);
  tasks.run("refresh hints", refresh);

  return {
    name: "containerd",
    connected: () => subscribed && answering,
    skippedNames: () => skippedNames,
    imagesWithoutLayers: () => imagesWithoutLayers,
    resolve: (name, call) => images.resolve(name, call),
    stat: (digest, call) => contents.stat(digest, call),
    open: (digest, call) => contents.open(digest, call),
    watch: (call) => feed.watch(call),

    async inventory(call) {
      const named = await images.list(call);
      const listed = await contents.list(call);
      noteSkipped(named.skipped);
      const walking = walk.begin(listed);
      const walked = await nameOrigins(listed, named.images, walking, call);
      await noteDiscarded(listed, walking, call);
      return {
        images: named.images,
        contents: Array.from(
          listed,
          ([digest, { origins }]): ContentEntry => ({ digest, origins: walked.get(digest) ?? origins }),
        ),
      };
    },

    async [Symbol.asyncDispose]() {
      await tasks[Symbol.asyncDispose]();
      client[Symbol.dispose]();
    },
  };
}
