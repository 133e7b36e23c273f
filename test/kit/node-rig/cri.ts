// SPDX-License-Identifier: Apache-2.0
import { Client, credentials, loadPackageDefinition, type ServiceClientConstructor } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

export interface CRIImage {
  readonly id: string;
  readonly repo_tags: readonly string[];
  readonly repo_digests: readonly string[];
}

/** What the kubelet says to a container runtime about images. */
export interface CRI extends Disposable {
  /** Pulls as the kubelet does and resolves with the image's reference. Rejects with the runtime's own words. */
  pull(
    image: string,
    credentials?: { readonly username: string; readonly password: string },
  ): Promise<string>;
  images(): Promise<readonly CRIImage[]>;
  remove(image: string): Promise<void>;
}

const CALL_TIMEOUT_MS = 150_000;

export function createCRI(socketPath: string): CRI {
  const definition = loadSync(new URL("./cri.proto", import.meta.url).pathname, {
    keepCase: true,
    longs: Number,
    defaults: true,
  });
  const { runtime } = loadPackageDefinition(definition) as unknown as {
    runtime: { v1: { ImageService: ServiceClientConstructor } };
  };
  const client = new runtime.v1.ImageService(`unix:${socketPath}`, credentials.createInsecure(), {
    "grpc.default_authority": "localhost",
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 200,
  });
  type Callback = (error: Error | null, answer: unknown) => void;
  type Method = (request: object, options: { deadline: number }, callback: Callback) => void;
  const call = <T>(method: string, request: object): Promise<T> =>
    new Promise((resolve, reject) => {
      const invoke = (client as unknown as Record<string, Method>)[method] as Method;
      invoke.call(client, request, { deadline: Date.now() + CALL_TIMEOUT_MS }, (error, answer) =>
        error === null ? resolve(answer as T) : reject(error),
      );
    });
  return {
    pull: async (image, auth) =>
      (
        await call<{ image_ref: string }>("PullImage", {
          image: { image },
          ...(auth === undefined ? {} : { auth }),
        })
      ).image_ref,
    images: async () => (await call<{ images: CRIImage[] }>("ListImages", {})).images,
    remove: async (image) => {
      await call("RemoveImage", { image: { image } });
    },
    [Symbol.dispose]: () => Client.prototype.close.call(client),
  };
}
