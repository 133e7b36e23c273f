// SPDX-License-Identifier: Apache-2.0
import { createServer as createHttpServer, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { createKeyPair, issueAuthority, issueLeaf } from "#pki";
import type { ApiUser } from "./authorization.ts";
import { createFaultPlan, type Faults } from "./faults.ts";
import { kubeconfigOf } from "./kubeconfig.ts";
import { createReads } from "./reads.ts";
import { apiVersionOf, DEFAULT_RESOURCES, resourceId, type ServedResource } from "./resources.ts";
import { answer, type OpenWatch, type RequestRecord } from "./server.ts";
import { type ApiObject, Storage } from "./storage.ts";
import { createWrites } from "./writes.ts";

export interface ApiServerOptions {
  /** Served in addition to DEFAULT_RESOURCES. */
  readonly resources?: readonly ServedResource[];
  /** Besides the admin, whose token is `ApiServer.token`. */
  readonly users?: readonly ApiUser[];
  /** Plain HTTP on loopback. Default: TLS with an authority of its own. */
  readonly plain?: boolean;
  /** Default 60 s, as kube-apiserver. */
  readonly bookmarkIntervalMs?: number;
  /** Changes kept per resource for watches that resume; default 1000. */
  readonly historyLimit?: number;
  /** Milliseconds since 1970, for the timestamps the server writes. */
  readonly now?: () => number;
  /** Where webhooks in `service` mode are reached: `<namespace>/<name>` to `host:port`. */
  readonly services?: Readonly<Record<string, string>>;
}

/** `{apiVersion, kind, metadata}` and whatever else; what tests seed and read. */
export type ApiObjectInit = {
  apiVersion: string;
  kind: string;
  metadata: { name: string } & Record<string, unknown>;
} & Record<string, unknown>;

export interface ApiServer extends AsyncDisposable {
  readonly url: string;
  /** PEM; empty for a plain server. */
  readonly caCertificate: string;
  /** Bearer token of the admin. */
  readonly token: string;
  /** A kubeconfig for the admin, another token, or a file with one (`tokenFile`). */
  kubeconfig(options?: { readonly token?: string; readonly tokenFile?: string }): string;
  /** Writes objects past admission, with status, as if a foreign actor had. Replaces; generation follows the content. */
  seed(objects: readonly ApiObjectInit[]): void;
  get(kind: string, name: string, namespace?: string): ApiObject | undefined;
  list(kind: string, namespace?: string): readonly ApiObject[];
  /** Removes past finalizers. */
  remove(kind: string, name: string, namespace?: string): void;
  addUser(user: ApiUser): Disposable;
  /** Registers where a Service's webhook is served. */
  setService(namespace: string, name: string, address: string): void;
  /** Requests so far, oldest first, at most 10,000. */
  readonly requests: readonly RequestRecord[];
  clearRequests(): void;
  readonly openWatches: number;
  readonly faults: Faults;
}

const MAX_RECORDS = 10_000;

/**
 * A Kubernetes API server in this process: generic REST storage with watches, admission webhooks called over
 * real TLS, and simple authorization. A stand-in: no discovery, no schemas, no controllers, no garbage collection.
 */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const token = "admin-token";
  const users = new Map<string, ApiUser>([[token, { name: "admin", token, rules: "admin" }]]);
  for (const user of options.users ?? []) users.set(user.token, user);
  const resources = new Map(
    [...DEFAULT_RESOURCES, ...(options.resources ?? [])].map((each) => [resourceId(each), each]),
  );
  const byKind = new Map([...resources.values()].map((each) => [`${apiVersionOf(each)}/${each.kind}`, each]));
  const services = new Map(Object.entries(options.services ?? {}));
  const storage = new Storage({ historyLimit: options.historyLimit ?? 1000, now: options.now ?? Date.now });
  const reads = createReads(storage, { bookmarkIntervalMs: options.bookmarkIntervalMs ?? 60_000 });
  const namespaces = resourceOf("Namespace");
  const writes = createWrites(
    storage,
    {
      configurations: (kind) => storage.list(resourceOf(`${kind}WebhookConfiguration`)),
      namespaceLabels: (name) => ({
        "kubernetes.io/metadata.name": name,
        ...storage.get(namespaces, `/${name}`)?.metadata.labels,
      }),
      serviceAddress: (namespace, name) => services.get(`${namespace}/${name}`),
    },
    namespaces,
  );
  const faultPlan = createFaultPlan();
  const watches = new Set<OpenWatch>();
  const requests: RequestRecord[] = [];
  const sockets = new Set<Socket>();

  function resourceOf(kind: string): ServedResource {
    const found = [...resources.values()].find((each) => each.kind === kind);
    if (!found) throw new Error(`no resource of kind ${kind}`);
    return found;
  }

  const parts = {
    storage,
    resources,
    users,
    reads,
    writes,
    watches,
    faults: faultPlan,
    record: (request: RequestRecord) => {
      requests.push(request);
      if (requests.length > MAX_RECORDS) requests.shift();
    },
  };
  const identity = options.plain === true ? undefined : await createIdentity();
  const listener = (request: Parameters<typeof answer>[1], response: Parameters<typeof answer>[2]): void =>
    void answer(parts, request, response);
  const server: Server = identity
    ? createHttpsServer({ cert: identity.certificate, key: identity.key }, listener)
    : createHttpServer(listener);
  server.keepAliveTimeout = 60_000;
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const url = `${identity ? "https" : "http"}://127.0.0.1:${(server.address() as AddressInfo).port}`;

  for (const name of ["default", "kube-system", "kube-public", "kube-node-lease"]) {
    seed([{ apiVersion: "v1", kind: "Namespace", metadata: { name } }]);
  }

  function seed(objects: readonly ApiObjectInit[]): void {
    for (const object of objects) {
      const resource = byKind.get(`${object.apiVersion}/${object.kind}`);
      if (!resource) throw new Error(`no resource for ${object.apiVersion} ${object.kind}`);
      const { metadata } = object;
      const old = storage.get(resource, `${metadata["namespace"] ?? ""}/${metadata.name}`);
      const generation =
        old && contentOf(old) !== contentOf(object)
          ? (old.metadata.generation ?? 0) + 1
          : old?.metadata.generation;
      storage.put(resource, {
        ...object,
        metadata: {
          ...(old && { uid: old.metadata.uid, creationTimestamp: old.metadata.creationTimestamp }),
          ...(generation !== undefined && { generation }),
          ...metadata,
        },
      } as ApiObject);
    }
  }

  return {
    url,
    caCertificate: identity?.authority ?? "",
    token,
    requests,
    seed,
    kubeconfig: (user = {}) =>
      kubeconfigOf(url, identity?.authority ?? "", user.tokenFile ? user : { token, ...user }),
    get: (kind, name, namespace) => storage.get(resourceOf(kind), `${namespace ?? ""}/${name}`),
    list: (kind, namespace) =>
      storage
        .list(resourceOf(kind))
        .filter((each) => namespace === undefined || each.metadata.namespace === namespace),
    remove(kind, name, namespace) {
      const object = storage.get(resourceOf(kind), `${namespace ?? ""}/${name}`);
      if (object) storage.remove(resourceOf(kind), object);
    },
    addUser(user) {
      users.set(user.token, user);
      return { [Symbol.dispose]: () => void users.delete(user.token) };
    },
    setService: (namespace, name, address) => void services.set(`${namespace}/${name}`, address),
    clearRequests: () => void requests.splice(0),
    get openWatches() {
      return watches.size;
    },
    faults: {
      inject: faultPlan.inject,
      dropWatches: () => watches.forEach((watch) => watch.end()),
      silenceWatches: () => watches.forEach((watch) => void (watch.silent = true)),
      writeToWatches: (line) => watches.forEach((watch) => watch.write(line)),
      compact: () => {
        storage.compact();
        reads.expirePages();
      },
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function contentOf({ metadata: _metadata, status: _status, ...content }: Record<string, unknown>): string {
  return JSON.stringify(content);
}

async function createIdentity(): Promise<{ authority: string; certificate: string; key: string }> {
  const nowMs = Date.now();
  const validityMs = 24 * 3_600_000;
  const [authorityKey, key] = await Promise.all([
    createKeyPair({ bits: 2048 }),
    createKeyPair({ bits: 2048 }),
  ]);
  const authority = await issueAuthority({ commonName: "kubernetes", validityMs, nowMs, key: authorityKey });
  const leaf = await issueLeaf(authority, {
    usage: "server",
    commonName: "kube-apiserver",
    dnsNames: ["localhost", "kubernetes.default.svc"],
    ipAddresses: ["127.0.0.1", "::1"],
    validityMs,
    nowMs,
    key,
  });
  return { authority: authority.certificatePem, certificate: leaf.certificatePem, key: leaf.privateKeyPem };
}
