// SPDX-License-Identifier: Apache-2.0
import {
  Client,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import type { ServerStreamMethod, UnaryMethod } from "#api/containerd";
import { StoreError } from "#store";

// sun_path of a unix socket address, without its terminating zero.
const MAX_SOCKET_PATH_BYTES = 107;

export interface CallOptions {
  /** containerd's namespace; without it for services that have none. */
  readonly namespace?: string;
  readonly signal: AbortSignal;
  /** Ends the whole call; default the client's `callTimeoutMs`. */
  readonly timeoutMs?: number;
}

/** gRPC over containerd's socket. Every call has a deadline, except streams that are asked for without one. */
export interface ContainerdClient extends Disposable {
  /** @returns undefined when containerd answers NOT_FOUND. @throws StoreError STORE_UNAVAILABLE */
  call<Q, S>(method: UnaryMethod<Q, S>, request: Partial<Q>, options: CallOptions): Promise<S | undefined>;
  /** The messages of a stream; leaving the loop ends the call. @throws StoreError STORE_UNAVAILABLE */
  stream<Q, S>(
    method: ServerStreamMethod<Q, S>,
    request: Partial<Q>,
    options: CallOptions,
  ): AsyncGenerator<S, void, undefined>;
}

export interface ContainerdClientOptions {
  readonly socketPath: string;
  readonly callTimeoutMs: number;
  /** Larger answers are refused; containerd itself sends at most 16 MiB. */
  readonly maxMessageBytes: number;
}

/** @throws StoreError STORE_UNAVAILABLE when no socket can have that path. Connects with the first call. */
export function createContainerdClient(options: ContainerdClientOptions): ContainerdClient {
  const { socketPath, callTimeoutMs, maxMessageBytes } = options;
  if (!socketPath.startsWith("/") || Buffer.byteLength(socketPath) > MAX_SOCKET_PATH_BYTES) {
    throw unavailable(
      `socket path "${socketPath}" is not absolute or longer than ${MAX_SOCKET_PATH_BYTES} bytes`,
    );
  }
  const client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
    "grpc.default_authority": "localhost",
    "grpc.max_receive_message_length": maxMessageBytes,
    // A socket on the same host: nothing is spared by waiting longer.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    // Channels of one address are shared otherwise, and would outlive this client.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_retries": 0,
    "grpc.enable_channelz": 0,
    "grpc.service_config_disable_resolution": 1,
  });

  return {
    call<Q, S>(
      method: UnaryMethod<Q, S>,
      request: Partial<Q>,
      { namespace, signal, timeoutMs }: CallOptions,
    ) {
      return new Promise<S | undefined>((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason as Error);
        const call = client.makeUnaryRequest<Partial<Q>, S>(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          request,
          metadataOf(namespace),
          { deadline: Date.now() + (timeoutMs ?? callTimeoutMs) },
          (error, response) => {
            signal.removeEventListener("abort", cancel);
            if (error === null) resolve(response);
            else if (signal.aborted) reject(signal.reason as Error);
            else if (error.code === status.NOT_FOUND) resolve(undefined);
            else reject(failed(method.path, error));
          },
        );
        const cancel = (): void => call.cancel();
        signal.addEventListener("abort", cancel, { once: true });
      });
    },

    async *stream<Q, S>(
      method: ServerStreamMethod<Q, S>,
      request: Partial<Q>,
      { namespace, signal, timeoutMs }: CallOptions,
    ) {
      signal.throwIfAborted();
      const call: ClientReadableStream<S> = client.makeServerStreamRequest<Partial<Q>, S>(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadataOf(namespace),
        timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs },
      );
      const cancel = (): void => call.cancel();
      signal.addEventListener("abort", cancel, { once: true });
      call.on("error", () => {}); // an error that arrives when nobody iterates any more
      try {
        for await (const response of call) yield response as S;
      } catch (error) {
        signal.throwIfAborted();
        throw failed(method.path, error as ServiceError);
      } finally {
        signal.removeEventListener("abort", cancel);
        call.cancel();
      }
      signal.throwIfAborted();
    },

    [Symbol.dispose]: () => client.close(),
  };
}

function metadataOf(namespace: string | undefined): Metadata {
  const metadata = new Metadata();
  if (namespace !== undefined) metadata.set("containerd-namespace", namespace);
  return metadata;
}

function failed(path: string, error: ServiceError): StoreError {
  const name = path.slice(path.lastIndexOf(".") + 1);
  const code = status[error.code] ?? String(error.code);
  return unavailable(
    `containerd did not answer ${name} (${code}: ${String(error.details ?? error.message).slice(0, 300)})`,
  );
}

export function unavailable(message: string): StoreError {
  return new StoreError({ code: "STORE_UNAVAILABLE", message });
}
