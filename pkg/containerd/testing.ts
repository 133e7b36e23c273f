// SPDX-License-Identifier: Apache-2.0
/**
 * Two containerds for tests: a fake one inside the process that behaves like a given version, and the real one of the
 * machine with folders and a socket of its own. Both are filled through `createContainerdDriver`.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerWritableStream,
  type ServiceDefinition,
  type ServiceError,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import {
  ContentCreate,
  ContentDelete,
  contentService,
  type Envelope,
  eventsService,
  Image,
  imagesService,
  introspectionService,
  versionService,
  WRITE_ACTION,
} from "#api/containerd";
import { type Digest, digestHex, sha256Digest } from "#oci";
import { createContainerdDriver } from "./containerd-driver.ts";

export { createContainerdDriver } from "./containerd-driver.ts";

/** A containerd under test, wherever it runs. */
export interface ContainerdUnderTest extends AsyncDisposable {
  readonly socketPath: string;
  readonly contentPath: string;
  /** Ends it as `kill -9` does; the socket file stays. */
  kill(): Promise<void>;
  /** Starts it again on the same folders and socket. */
  restart(): Promise<void>;
  /** Stops answering without closing anything, until `resume`. */
  pause(): void;
  resume(): void;
}

export interface FakeContainerd extends ContainerdUnderTest {
  /** Sends an event as it is, of any topic and namespace. */
  emit(event: Envelope): void;
  /** Adds content of any claimed size without a file, for lists of thousands. */
  list(
    namespace: string,
    contents: Iterable<{ readonly digest: string; readonly labels: ReadonlyMap<string, string> }>,
  ): void;
  /** Removes content the way garbage collection does: no event. */
  collect(digest: Digest): Promise<void>;
  /** Live subscriptions. */
  subscriptions(): number;
}

interface FakeContent {
  readonly size: number;
  labels: ReadonlyMap<string, string>;
}

interface FakeNamespace {
  readonly contents: Map<string, FakeContent>;
  readonly images: Map<
    string,
    { readonly mediaType: string; readonly digest: string; readonly size: number }
  >;
}

type Subscriber = ServerWritableStream<{ filters: readonly string[] }, Partial<Envelope>>;

/** @param options.version decides which events are sent: 1.6 and 1.7 tell of images only, 2.x of content as well */
export async function startFakeContainerd(
  options: { readonly version?: "1.6.20" | "1.7.24" | "2.1.9" } = {},
): Promise<FakeContainerd> {
  const { version = "2.1.9" } = options;
  const directory = await mkdtemp(join(tmpdir(), "fake-containerd-"));
  const socketPath = join(directory, "containerd.sock");
  const contentPath = join(directory, "content");
  await mkdir(join(contentPath, "blobs", "sha256"), { recursive: true });
  const namespaces = new Map<string, FakeNamespace>();
  const subscribers = new Set<Subscriber>();
  let resumed: PromiseWithResolvers<void> | undefined;
  let server: Server | undefined;

  function namespaceOf(call: {
    readonly metadata: { get(key: string): (string | Buffer)[] };
  }): FakeNamespace & { name: string } {
    const name = String(call.metadata.get("containerd-namespace")[0] ?? "");
    if (name === "") throw fault(status.FAILED_PRECONDITION, "namespace is required");
    return { name, ...inNamespace(name) };
  }

  function inNamespace(name: string): FakeNamespace {
    const known = namespaces.get(name) ?? { contents: new Map(), images: new Map() };
    namespaces.set(name, known);
    return known;
  }

  function emit(event: Envelope): void {
    for (const subscriber of subscribers) {
      if (subscriber.request.filters.some((filter) => matches(filter, event))) subscriber.write(event);
    }
  }

  function tell(namespace: string, topic: string, payload: Buffer, type: string): void {
    emit({ namespace, topic, event: { typeUrl: `containerd.${type}`, value: payload } });
  }

  function unary<Q, S>(
    handle: (call: Parameters<handleUnaryCall<Q, S>>[0]) => S | Promise<S>,
  ): handleUnaryCall<Q, S> {
    return async (call, answer) => {
      await resumed?.promise;
      try {
        answer(null, await handle(call));
      } catch (error) {
        answer(error as ServiceError);
      }
    };
  }

  async function write(call: WriteCall, request: WriteRequest, parts: Uint8Array[]): Promise<void> {
    const { name, contents } = namespaceOf(call);
    const digest = request.expected as Digest;
    if (contents.has(digest)) throw fault(status.ALREADY_EXISTS, `content ${digest}: already exists`);
    parts.push(Buffer.from(request.data));
    if (request.action !== WRITE_ACTION.COMMIT) return;
    const bytes = Buffer.concat(parts);
    if (sha256Digest(bytes) !== digest) throw fault(status.FAILED_PRECONDITION, "unexpected commit digest");
    await writeFile(blobPath(digest), bytes);
    contents.set(digest, { size: bytes.length, labels: request.labels });
    call.write({ action: WRITE_ACTION.COMMIT, offset: bytes.length, total: bytes.length, digest });
    if (version.startsWith("2.")) {
      tell(
        name,
        "/content/create",
        ContentCreate.encode({ digest, size: bytes.length }),
        "events.ContentCreate",
      );
    }
    call.end();
  }

  const blobPath = (digest: Digest): string => join(contentPath, "blobs", "sha256", digestHex(digest));
  const imageOf = (name: string, target: FakeImage["target"]): FakeImage => ({ name, target });

  const content: UntypedServiceImplementation = {
    info: unary<{ digest: string }, object>((call) => {
      const found = namespaceOf(call).contents.get(call.request.digest);
      if (found === undefined) throw fault(status.NOT_FOUND, `content ${call.request.digest}: not found`);
      return { info: { digest: call.request.digest, ...found } };
    }),
    list: (async (call) => {
      await resumed?.promise;
      const all = Array.from(namespaceOf(call).contents, ([digest, each]) => ({ digest, ...each }));
      for (let start = 0; start < all.length; start += 100)
        call.write({ info: all.slice(start, start + 100) });
      call.end();
    }) satisfies handleServerStreamingCall<object, object>,
    listStatuses: unary(() => ({ statuses: [] })),
    update: unary<{ info: { digest: string; labels: ReadonlyMap<string, string> } }, object>((call) => {
      const { digest, labels } = call.request.info;
      const found = namespaceOf(call).contents.get(digest);
      if (found === undefined) throw fault(status.NOT_FOUND, `content ${digest}: not found`);
      found.labels = labels;
      return { info: { digest, ...found } };
    }),
    write: (call: WriteCall) => {
      const parts: Uint8Array[] = [];
      call.on("data", (request: WriteRequest) => {
        write(call, request, parts).catch((error: unknown) => call.emit("error", error));
      });
    },
    delete: unary<{ digest: string }, object>(async (call) => {
      const { name, contents } = namespaceOf(call);
      const { digest } = call.request;
      if (!contents.delete(digest)) throw fault(status.NOT_FOUND, `content ${digest}: not found`);
      await rm(blobPath(digest as Digest), { force: true });
      tell(name, "/content/delete", ContentDelete.encode({ digest }), "events.ContentDelete");
      return {};
    }),
  };

  const changeImage = (action: "create" | "update"): handleUnaryCall<{ image: FakeImage }, object> =>
    unary((call) => {
      const { name: namespace, images } = namespaceOf(call);
      const { name, target } = call.request.image;
      if (images.has(name) !== (action === "update")) {
        throw fault(action === "create" ? status.ALREADY_EXISTS : status.NOT_FOUND, `image "${name}"`);
      }
      images.set(name, target);
      const type = action === "create" ? "services.images.v1.ImageCreate" : "services.images.v1.ImageUpdate";
      tell(namespace, `/images/${action}`, Image.encode({ name }), type);
      return { image: imageOf(name, target) };
    });

  const images: UntypedServiceImplementation = {
    get: unary<{ name: string }, object>((call) => {
      const target = namespaceOf(call).images.get(call.request.name);
      if (target === undefined) throw fault(status.NOT_FOUND, `image "${call.request.name}": not found`);
      return { image: imageOf(call.request.name, target) };
    }),
    list: unary((call) => ({
      images: Array.from(namespaceOf(call).images, ([name, target]) => imageOf(name, target)),
    })),
    create: changeImage("create"),
    update: changeImage("update"),
    delete: unary<{ name: string }, object>((call) => {
      const { name: namespace, images: known } = namespaceOf(call);
      if (!known.delete(call.request.name)) throw fault(status.NOT_FOUND, "image: not found");
      const payload = Image.encode({ name: call.request.name });
      tell(namespace, "/images/delete", payload, "services.images.v1.ImageDelete");
      return {};
    }),
  };

  const events: UntypedServiceImplementation = {
    publish: unary<{ topic: string; event: Envelope["event"] }, object>((call) => {
      emit({ namespace: namespaceOf(call).name, topic: call.request.topic, event: call.request.event });
      return {};
    }),
    // As the real one: no headers before the first event.
    subscribe: (call: Subscriber) => {
      subscribers.add(call);
      call.on("cancelled", () => subscribers.delete(call)).on("error", () => subscribers.delete(call));
    },
  };

  async function start(): Promise<void> {
    await rm(socketPath, { force: true });
    server = new Server();
    add(server, contentService, content);
    add(server, imagesService, images);
    add(server, eventsService, events);
    add(server, versionService, { version: unary(() => ({ version, revision: "fake" })) });
    add(server, introspectionService, {
      plugins: unary(() => ({
        plugins: [
          {
            type: "io.containerd.snapshotter.v1",
            id: "overlayfs",
            exports: new Map([["root", "/elsewhere"]]),
          },
          { type: "io.containerd.content.v1", id: "content", exports: new Map([["root", contentPath]]) },
        ],
      })),
    });
    const bound = Promise.withResolvers<void>();
    server.bindAsync(`unix:${socketPath}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? bound.resolve() : bound.reject(error),
    );
    await bound.promise;
  }

  async function kill(): Promise<void> {
    server?.forceShutdown();
    server = undefined;
    subscribers.clear();
  }

  function resume(): void {
    resumed?.resolve();
    resumed = undefined;
  }

  await start();
  return {
    socketPath,
    contentPath,
    emit,
    kill,
    restart: start,
    pause: () => {
      resumed ??= Promise.withResolvers<void>();
    },
    resume,
    subscriptions: () => subscribers.size,
    list(namespace, contents) {
      for (const { digest, labels } of contents)
        inNamespace(namespace).contents.set(digest, { size: 1, labels });
    },
    async collect(digest) {
      for (const each of namespaces.values()) each.contents.delete(digest);
      await rm(blobPath(digest), { force: true });
    },
    async [Symbol.asyncDispose]() {
      resume();
      await kill();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

interface FakeImage {
  readonly name: string;
  readonly target: { readonly mediaType: string; readonly digest: string; readonly size: number };
}

interface WriteRequest {
  readonly action: number;
  readonly expected: string;
  readonly data: Uint8Array;
  readonly labels: ReadonlyMap<string, string>;
}

type WriteCall = ServerDuplexStream<WriteRequest, object>;

function add(server: Server, service: object, implementation: UntypedServiceImplementation): void {
  server.addService(service as ServiceDefinition, implementation);
}

function fault(code: status, details: string): Partial<ServiceError> {
  return Object.assign(new Error(details), { code, details });
}

// `field==value` and `field~=expression`, joined by commas, values quoted.
function matches(filter: string, event: Envelope): boolean {
  return filter.split(",").every((condition) => {
    const [, field, operator, value = ""] = /^(topic|namespace)(==|~=)"(.*)"$/.exec(condition) ?? [];
    const actual = field === "topic" ? event.topic : event.namespace;
    return operator === "==" ? actual === value : operator === "~=" && new RegExp(value).test(actual);
  });
}

/** Why the machine's containerd cannot be used; undefined when it can. */
export function realContainerdMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  const found = spawnSync("containerd", ["--version"], { encoding: "utf8" });
  return found.status === 0 ? undefined : "containerd is not installed";
}

/** The machine's containerd with folders of its own, without plugins that touch the rest of the machine. */
export async function startRealContainerd(): Promise<ContainerdUnderTest> {
  const directory = await mkdtemp(join(tmpdir(), "containerd-"));
  const socketPath = join(directory, "containerd.sock");
  const configPath = join(directory, "config.toml");
  await writeFile(configPath, realConfig(directory));
  let child: ChildProcess | undefined;

  async function start(): Promise<void> {
    child = spawn("containerd", ["--config", configPath], { stdio: ["ignore", "ignore", "pipe"] });
    let complaints = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      complaints = (complaints + chunk.toString("utf8")).slice(-4000);
    });
    using driver = createContainerdDriver(socketPath);
    for (let tries = 0; ; tries++) {
      const version = await driver.version().catch(() => undefined);
      if (version !== undefined) return;
      if (child.exitCode !== null || tries > 300) throw new Error(`containerd did not start: ${complaints}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async function kill(): Promise<void> {
    const ending = child;
    child = undefined;
    if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return;
    const exited = once(ending, "exit");
    ending.kill("SIGKILL");
    await exited;
  }

  try {
    await start();
  } catch (error) {
    await kill();
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
  return {
    socketPath,
    contentPath: join(directory, "root", "io.containerd.content.v1.content"),
    kill,
    restart: start,
    pause: () => void child?.kill("SIGSTOP"),
    resume: () => void child?.kill("SIGCONT"),
    async [Symbol.asyncDispose]() {
      await kill();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function realConfig(directory: string): string {
  const plugins = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
  ];
  return `version = 2
root = "${directory}/root"
state = "${directory}/state"
oom_score = 0
disabled_plugins = ${JSON.stringify(plugins)}
[grpc]
  address = "${directory}/containerd.sock"
[ttrpc]
  address = "${directory}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${directory}/opt"
`;
}
