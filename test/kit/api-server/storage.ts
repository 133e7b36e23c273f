// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from "node:crypto";
import { apiVersionOf, resourceId, type ServedResource } from "./resources.ts";
import { expired } from "./status.ts";

export interface ApiMetadata {
  name: string;
  generateName?: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  finalizers?: string[];
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  [field: string]: unknown;
}

/** An object as it is stored and sent. Stored ones are frozen: a change is a new object. */
export interface ApiObject {
  apiVersion: string;
  kind: string;
  metadata: ApiMetadata;
  [field: string]: unknown;
}

export interface StoredEvent {
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: ApiObject;
  /** Before the change; a selector may have matched it while it no longer matches the new one. */
  readonly previous?: ApiObject;
  readonly version: number;
}

interface Collection {
  readonly resource: ServedResource;
  readonly objects: Map<string, ApiObject>;
  readonly watchers: Set<(event: StoredEvent) => void>;
  history: StoredEvent[];
  /** Events up to this version are forgotten. */
  compacted: number;
}

export const keyOf = (object: { metadata: { namespace?: string; name: string } }): string =>
  `${object.metadata.namespace ?? ""}/${object.metadata.name}`;

/** Objects of all resources under one version counter, with the recent changes of each. */
export class Storage {
  #version = 100;
  readonly #collections = new Map<string, Collection>();
  readonly #historyLimit: number;
  readonly #now: () => number;

  constructor(options: { historyLimit: number; now: () => number }) {
    this.#historyLimit = options.historyLimit;
    this.#now = options.now;
  }

  get version(): number {
    return this.#version;
  }

  get(resource: ServedResource, key: string): ApiObject | undefined {
    return this.#collection(resource).objects.get(key);
  }

  /** Sorted by namespace and name, as etcd keys are. */
  list(resource: ServedResource): ApiObject[] {
    const byKey = [...this.#collection(resource).objects];
    return byKey.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, object]) => object);
  }

  /** Stores a new or changed object; fills what only the server sets. */
  put(resource: ServedResource, object: ApiObject): ApiObject {
    const collection = this.#collection(resource);
    const key = keyOf(object);
    const previous = collection.objects.get(key);
    const version = ++this.#version;
    const stored = deepFreeze({
      ...object,
      apiVersion: apiVersionOf(resource),
      kind: resource.kind,
      metadata: {
        ...object.metadata,
        uid: object.metadata.uid ?? randomUUID(),
        creationTimestamp: object.metadata.creationTimestamp ?? this.timestamp(),
        ...(resource.generation === true && { generation: object.metadata.generation ?? 1 }),
        resourceVersion: String(version),
      },
    });
    collection.objects.set(key, stored);
    this.#record(collection, {
      type: previous ? "MODIFIED" : "ADDED",
      object: stored,
      ...(previous && { previous }),
      version,
    });
    return stored;
  }

  remove(resource: ServedResource, object: ApiObject): ApiObject {
    const collection = this.#collection(resource);
    const version = ++this.#version;
    const last = deepFreeze({
      ...object,
      metadata: { ...object.metadata, resourceVersion: String(version) },
    });
    collection.objects.delete(keyOf(object));
    this.#record(collection, { type: "DELETED", object: last, previous: object, version });
    return last;
  }

  /** Events after `version`, then every further one. @throws ApiStatus 410 when they are forgotten. */
  watch(resource: ServedResource, version: number, onEvent: (event: StoredEvent) => void): Disposable {
    const collection = this.#collection(resource);
    if (version < collection.compacted) {
      throw expired(`too old resource version: ${version} (${collection.compacted})`);
    }
    for (const event of collection.history) if (event.version > version) onEvent(event);
    collection.watchers.add(onEvent);
    return { [Symbol.dispose]: () => void collection.watchers.delete(onEvent) };
  }

  /** Forgets all recorded changes, as etcd's compaction does: older watches and pages get 410. */
  compact(): void {
    for (const collection of this.#collections.values()) this.#forget(collection, 0);
  }

  /** meta/v1 Time: whole seconds. */
  timestamp(): string {
    return `${new Date(this.#now()).toISOString().slice(0, 19)}Z`;
  }

  #record(collection: Collection, event: StoredEvent): void {
    collection.history.push(event);
    if (collection.history.length > this.#historyLimit) this.#forget(collection, this.#historyLimit);
    for (const watcher of [...collection.watchers]) watcher(event);
  }

  #forget(collection: Collection, keep: number): void {
    const dropped = collection.history.length - keep;
    collection.compacted = keep === 0 ? this.#version : (collection.history[dropped - 1]?.version ?? 0);
    collection.history = collection.history.slice(dropped);
  }

  #collection(resource: ServedResource): Collection {
    const id = resourceId(resource);
    let collection = this.#collections.get(id);
    if (!collection) {
      collection = { resource, objects: new Map(), watchers: new Set(), history: [], compacted: 0 };
      this.#collections.set(id, collection);
    }
    return collection;
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    for (const inner of Object.values(value)) deepFreeze(inner);
    Object.freeze(value);
  }
  return value;
}
