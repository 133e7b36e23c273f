// SPDX-License-Identifier: Apache-2.0
/** The stand-in for gardener-resource-manager, of the seed and of the Shoot in one, on real API servers. */
import { garbageAmong, type ResourceTarget, runResourceManager } from "#kit/resource-manager";
import { createKubeClient, parseKubeConfig } from "#kube";
import type { AnyObject, KubeAPIServer, RawClient } from "../../kit/kube-parts/index.ts";

export interface ResourceManager extends AsyncDisposable {
  /** Why ManagedResources are not healthy, by their name; seen at the next `resync`. */
  readonly unhealthy: Map<string, string>;
  /** Namespaces of Shoots that sleep, and their own resource manager with them; those that wake up need a `resync`. */
  readonly asleep: Set<string>;
  /** Looks at all ManagedResources again. */
  resync(): Promise<void>;
  /** Deletes immutable Secrets that nothing refers to, whatever their age; their names. */
  collectGarbage(namespace: string): Promise<string[]>;
}

interface Cluster {
  readonly server: KubeAPIServer;
  readonly admin: RawClient;
}

const MANAGER = "gardener-resource-manager";
const RESOURCES = "resources.gardener.cloud/v1alpha1";

export async function startResourceManager(seed: Cluster, shoot: Cluster): Promise<ResourceManager> {
  const parts = new AsyncDisposableStack();
  const client = parts.use(
    createKubeClient(
      {
        ...(await parseKubeConfig(MINIMAL_KUBECONFIG, { directory: "/", source: "resource manager" })),
        server: new URL(seed.server.url),
        authoritiesPem: seed.server.caCertificate,
        credential: { kind: "token", token: seed.server.token },
      },
      { userAgent: MANAGER, requestsPerSecond: 10_000 },
    ),
  );
  const unhealthy = new Map<string, string>();
  const asleep = new Set<string>();
  const running = parts.use(
    runResourceManager({
      client,
      seed: targetOf(seed.admin),
      shoot: targetOf(shoot.admin),
      requestToken: (account) => shoot.admin.requestToken(account),
      unhealthyReason: (name) => unhealthy.get(name),
      isAsleep: (namespace) => asleep.has(namespace),
    }),
  );
  return {
    unhealthy,
    asleep,
    async resync() {
      for (const { metadata } of await seed.admin.list(RESOURCES, "ManagedResource"))
        running.look(`${metadata.namespace}/${metadata.name}`);
    },
    async collectGarbage(namespace) {
      const owners = [
        ...(await seed.admin.list(RESOURCES, "ManagedResource", namespace)),
        ...(await seed.admin.list("apps/v1", "Deployment", namespace)),
      ];
      const garbage = garbageAmong(await seed.admin.list("v1", "Secret", namespace), owners);
      for (const secret of garbage) await seed.admin.delete(secret);
      return garbage.map(({ metadata }) => metadata.name);
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

const MINIMAL_KUBECONFIG = JSON.stringify({
  "current-context": "a",
  clusters: [{ name: "a", cluster: { server: "https://127.0.0.1" } }],
  contexts: [{ name: "a", context: { cluster: "a" } }],
});

function targetOf(admin: RawClient): ResourceTarget {
  return {
    apply: async (object) => void (await admin.apply(object, MANAGER)),
    remove: async (object) => void (await admin.delete(object as AnyObject)),
  };
}
