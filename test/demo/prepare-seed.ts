// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import { parse } from "yaml";
import type { Cluster } from "#api/gardener";
import { type ApiObjectInit, type ApiServer, startApiServer } from "#kit/api-server";
import { type ResourceManager, startResourceManager } from "#kit/resource-manager";
import { createKubeClient, type KubeClient, parseKubeConfig } from "#kube";
import type { DemoNode } from "./demo-node.ts";
import { demand } from "./errors.ts";

/** What Gardener gives the extension: a seed with the Shoot's namespace in it, and the Shoot itself. */
export interface Seed {
  readonly api: ApiServer;
  /** For the one who plays gardenlet. */
  readonly client: KubeClient;
  /** The API server of the Shoot, where its nodes are. */
  readonly shoot: ApiServer;
  readonly resourceManager: ResourceManager;
  /** Of the Shoot in the seed. */
  readonly namespace: string;
  /** The data of a Secret in that namespace, keys to bytes. */
  readonly readSecret: (name: string) => Readonly<Record<string, Uint8Array>> | undefined;
}

/** Namespace of the extension in the seed. */
export const EXTENSION_NAMESPACE = "extension-registry-spegel";
/** Where the generic kubeconfig is mounted: gardenlet writes it with this path in it. */
const SHOOT_TOKEN_FILE = "/var/run/secrets/gardener.cloud/shoot/generic-kubeconfig/token";

/** Starts the API servers of seed and Shoot with what gardenlet would have put there. */
export async function prepareSeed(
  nodes: readonly DemoNode[],
  options: { readonly signal: AbortSignal },
  running: AsyncDisposableStack,
): Promise<Seed> {
  options.signal.throwIfAborted();
  const api = running.use(await startApiServer());
  const shoot = running.use(await startApiServer());
  const resourceManager = running.use(await startResourceManager(api, { shoot }));
  const cluster = await readExample<Cluster & ApiObjectInit>("cluster.yaml");
  const namespace = cluster.metadata.name;
  const kubeconfigSecret =
    cluster.metadata.annotations?.["generic-token-kubeconfig.secret.gardener.cloud/name"];
  demand(kubeconfigSecret !== undefined, "the example's Cluster does not name the generic kubeconfig");
  api.seed([
    namespaceOf("garden"),
    namespaceOf(EXTENSION_NAMESPACE),
    await readExample<ApiObjectInit>("namespace.yaml"),
    cluster,
    secretOf(namespace, kubeconfigSecret, {
      kubeconfig: shoot.kubeconfig({ tokenFile: SHOOT_TOKEN_FILE }),
    }),
    // Secrets of others that the example's OperatingSystemConfig refers to.
    secretOf(namespace, "ca-kubelet-bundle", { "bundle.crt": "kubelet CA\n" }),
    secretOf(namespace, "ca-extension-registry-cache-bundle", { "bundle.crt": "registry-cache CA\n" }),
  ]);
  shoot.seed(nodes.map(nodeObject));
  const client = running.use(
    createKubeClient(await parseKubeConfig(api.kubeconfig(), { directory: "/", source: "API server" }), {
      userAgent: "gardenlet",
    }),
  );
  return {
    api,
    client,
    shoot,
    resourceManager,
    namespace,
    readSecret(name) {
      const secret = api.get("Secret", name, namespace) as
        | { readonly data?: Readonly<Record<string, string>> }
        | undefined;
      if (secret?.data === undefined) return undefined;
      return Object.fromEntries(
        Object.entries(secret.data).map(([key, value]) => [key, Buffer.from(value, "base64")]),
      );
    },
  };
}

/** An object of the folder example/. */
export async function readExample<T>(name: string): Promise<T> {
  const text = await readFile(new URL(`../../example/${name}`, import.meta.url), "utf8");
  return parse(text) as T;
}

function namespaceOf(name: string): ApiObjectInit {
  return { apiVersion: "v1", kind: "Namespace", metadata: { name } };
}

function secretOf(namespace: string, name: string, data: Readonly<Record<string, string>>): ApiObjectInit {
  const encoded = Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]);
  return {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name, namespace },
    type: "Opaque",
    data: Object.fromEntries(encoded),
  };
}

function nodeObject(node: DemoNode): ApiObjectInit {
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: node.name },
    status: {
      addresses: [
        { type: "InternalIP", address: node.address },
        { type: "Hostname", address: node.name },
      ],
      conditions: [{ type: "Ready", status: "True" }],
    },
  };
}
