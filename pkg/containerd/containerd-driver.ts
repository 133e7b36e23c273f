// SPDX-License-Identifier: Apache-2.0
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import {
  contentService,
  imagesService,
  type UnaryMethod,
  versionService,
  WRITE_ACTION,
} from "#api/containerd";
import { type Digest, sha256Digest } from "#oci";
import type { ContentOrigin } from "#store";

const CHUNK_BYTES = 1024 * 1024;
const CALL_LIMIT_MS = 20_000;

/** Fills a containerd, real or fake, over its own API, as its clients do. For tests. */
export interface ContainerdDriver extends Disposable {
  version(): Promise<string>;
  /** Writes content. It is kept from garbage collection unless `collectable`. */
  addContent(
    bytes: Uint8Array,
    options?: { readonly digest?: Digest; readonly origin?: ContentOrigin; readonly collectable?: boolean },
  ): Promise<Digest>;
  setLabels(digest: Digest, labels: ReadonlyMap<string, string>): Promise<void>;
  removeContent(digest: Digest): Promise<void>;
  /** Creates an image, or points an existing one elsewhere. */
  setImage(name: string, digest: Digest, mediaType?: string): Promise<void>;
  /** @param options.collect waits for a garbage collection */
  removeImage(name: string, options?: { readonly collect?: boolean }): Promise<void>;
  imageNames(digest: Digest): Promise<readonly string[]>;
}

export function createContainerdDriver(socketPath: string, namespace = "k8s.io"): ContainerdDriver {
  const client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
    "grpc.default_authority": "localhost",
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 200,
  });
  const metadata = new Metadata();
  metadata.set("containerd-namespace", namespace);

  function call<Q, S>(method: UnaryMethod<Q, S>, request: Partial<Q>): Promise<S> {
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest<Partial<Q>, S>(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadata,
        { deadline: Date.now() + CALL_LIMIT_MS },
        (error, response) => {
          if (error !== null) reject(error);
          else if (response === undefined) reject(new Error(`${method.path} answered nothing`));
          else resolve(response);
        },
      );
    });
  }

  async function write(
    bytes: Uint8Array,
    digest: Digest,
    labels: ReadonlyMap<string, string>,
  ): Promise<void> {
    const { write: method } = contentService;
    const stream = client.makeBidiStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      metadata,
      { deadline: Date.now() + CALL_LIMIT_MS },
    );
    const done = Promise.withResolvers<void>();
    stream.on("error", done.reject).on("end", done.resolve).resume();
    const ref = `write-${digest}`;
    for (let offset = 0; offset < bytes.length; offset += CHUNK_BYTES) {
      const data = bytes.subarray(offset, offset + CHUNK_BYTES);
      stream.write({ action: WRITE_ACTION.WRITE, ref, total: bytes.length, expected: digest, offset, data });
    }
    const offset = bytes.length;
    stream.write({ action: WRITE_ACTION.COMMIT, ref, total: offset, expected: digest, offset, labels });
    stream.end();
    await done.promise;
  }

  async function labelsOf(digest: Digest): Promise<Map<string, string>> {
    const { info } = await call(contentService.info, { digest });
    return new Map(info?.labels);
  }

  return {
    version: async () => (await call(versionService.version, {})).version,

    async addContent(bytes, options = {}) {
      const digest = options.digest ?? sha256Digest(bytes);
      const labels = new Map<string, string>();
      if (options.collectable !== true) labels.set("containerd.io/gc.root", "2026-01-01T00:00:00Z");
      const source = `containerd.io/distribution.source.${options.origin?.registry}`;
      if (options.origin !== undefined) labels.set(source, options.origin.repository);
      try {
        await write(bytes, digest, labels);
      } catch (error) {
        if ((error as ServiceError).code !== status.ALREADY_EXISTS) throw error;
        const known = await labelsOf(digest);
        const repositories = [known.get(source), labels.get(source)].filter((each) => each !== undefined);
        if (repositories.length > 0) labels.set(source, repositories.join(","));
        await this.setLabels(digest, new Map([...known, ...labels]));
      }
      return digest;
    },

    async setLabels(digest, labels) {
      await call(contentService.update, { info: { digest, size: 0, labels } });
    },

    async removeContent(digest) {
      await call(contentService.delete, { digest });
    },

    async setImage(name, digest, mediaType = "application/vnd.oci.image.manifest.v1+json") {
      const image = { name, target: { mediaType, digest, size: 1 } };
      try {
        await call(imagesService.create, { image });
      } catch (error) {
        if ((error as ServiceError).code !== status.ALREADY_EXISTS) throw error;
        await call(imagesService.update, { image });
      }
    },

    async removeImage(name, { collect = false } = {}) {
      await call(imagesService.delete, { name, sync: collect });
    },

    async imageNames(digest) {
      const { images } = await call(imagesService.list, {});
      return images.filter((each) => each.target?.digest === digest).map((each) => each.name);
    },

    [Symbol.dispose]: () => client.close(),
  };
}
