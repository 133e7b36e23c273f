// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ImageLayout } from "../image-maker/index.ts";
import type { Authentication } from "./authentication.ts";
import type { Backend } from "./backend.ts";
import { isDebianRegistryInstalled, startDebianRegistry } from "./debian-registry.ts";
import type { FaultRule } from "./faults.ts";
import { type Front, startFront } from "./front.ts";
import type { RequestRecord } from "./ledger.ts";
import { startNodeRegistry } from "./node-registry.ts";
import { pushImage } from "./push-image.ts";

export type RegistryImplementation = "debian" | "node";

export interface RegistryOptions {
  /** Default: `debian` when it is installed. */
  readonly implementation?: RegistryImplementation;
  /** Address to listen on; default 127.0.0.1. */
  readonly address?: string;
  /** Default 0: any free one. */
  readonly port?: number;
  /** PEM texts; without them it speaks plain HTTP. */
  readonly tls?: { readonly certificate: string; readonly key: string };
  readonly authentication?: Authentication;
  readonly signal: AbortSignal;
}

/** A registry that images can be pushed to and pulled from. Disposing ends it and removes what it stored. */
export interface Registry extends AsyncDisposable {
  /** `docker-registry` or `node`. */
  readonly name: string;
  /** Scheme, address and port. */
  readonly origin: string;
  readonly port: number;
  /** Pushes past the front: neither counted nor failed nor asked for credentials. @throws RegistryError */
  push(
    layout: ImageLayout,
    tag: string,
    repository: string,
    options: { readonly signal: AbortSignal },
  ): Promise<void>;
  /** Body bytes sent in answers to GET so far, to everybody or to the client with this address. */
  bytesServed(client?: string): number;
  /** The newest 100,000 requests, oldest first. */
  requests(): readonly RequestRecord[];
  /** Makes requests fail until the returned value is disposed. */
  fail(rule: FaultRule): Disposable;
}

/** @throws RegistryError, ProcessError when it cannot be started */
export async function startRegistry(options: RegistryOptions): Promise<Registry> {
  const implementation = options.implementation ?? ((await isDebianRegistryInstalled()) ? "debian" : "node");
  await using starting = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "registry-"));
  starting.defer(() => rm(directory, { recursive: true, force: true }));
  const start = implementation === "debian" ? startDebianRegistry : startNodeRegistry;
  const backend: Backend = starting.use(await start({ directory, signal: options.signal }));
  const front: Front = starting.use(
    await startFront({
      backend: backend.origin,
      address: options.address ?? "127.0.0.1",
      port: options.port ?? 0,
      ...(options.tls === undefined ? {} : { tls: options.tls }),
      ...(options.authentication === undefined ? {} : { authentication: options.authentication }),
    }),
  );
  const parts = starting.move();
  return {
    name: backend.name,
    origin: front.origin,
    port: front.port,
    push: (layout, tag, repository, { signal }) =>
      pushImage(layout, { origin: backend.origin, repository, tag, signal }),
    bytesServed: (client) => front.ledger.bytesServed(client),
    requests: () => front.ledger.requests(),
    fail: (rule) => front.faults.add(rule),
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}
