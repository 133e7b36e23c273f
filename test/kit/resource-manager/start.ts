// SPDX-License-Identifier: Apache-2.0
import type { ApiObject, ApiObjectInit, ApiServer } from "#kit/api-server";
import { createKubeClient, parseKubeConfig } from "#kube";
import { garbageAmong, type ResourceTarget, runResourceManager } from "./run.ts";

export interface ResourceManagerOptions {
  /** Where class-less ManagedResources go; default a Shoot that swallows everything. */
  readonly shoot?: ApiServer;
  /** Why a ManagedResource is not healthy; undefined: it is. Asked at each look. */
  readonly unhealthyReason?: (name: string) => string | undefined;
  /** True while the Shoot sleeps, and its own resource manager with it. */
  readonly isAsleep?: () => boolean;
}

export interface ResourceManager extends AsyncDisposable {
  /** Objects of a ManagedResource as applied last. */
  applied(namespace: string, name: string): readonly ApiObject[];
  /** Deletes immutable secrets that nothing refers to, whatever their age; their names. */
  collectGarbage(): string[];
  /** Looks at everything again, e.g. after `unhealthyReason` changed its mind. */
  resync(): void;
}

const NODE_READER = { apiGroups: [""], resources: ["nodes"], verbs: ["get", "list", "watch"] };

/** Between API servers in this process. */
export async function startResourceManager(
  seed: ApiServer,
  options: ResourceManagerOptions = {},
): Promise<ResourceManager> {
  const parts = new AsyncDisposableStack();
  const connection = await parseKubeConfig(seed.kubeconfig(), { directory: "/", source: "seed" });
  const client = parts.use(
    createKubeClient(connection, { userAgent: "resource-manager", requestsPerSecond: 10_000 }),
  );
  const running = parts.use(
    runResourceManager({
      client,
      seed: targetOf(seed),
      shoot: targetOf(options.shoot),
      requestToken({ namespace, name }) {
        const account = `${namespace}:${name}`;
        const token = `token-of-${account}`;
        options.shoot?.addUser({ name: `system:serviceaccount:${account}`, token, rules: [NODE_READER] });
        return token;
      },
      unhealthyReason: (name) => options.unhealthyReason?.(name),
      isAsleep: () => options.isAsleep?.() ?? false,
    }),
  );
  return {
    applied: (namespace, name) => (running.applied.get(`${namespace}/${name}`) ?? []) as ApiObject[],
    collectGarbage() {
      const owners = ["ManagedResource", "Deployment"].flatMap((kind) => seed.list(kind));
      const garbage = garbageAmong(seed.list("Secret"), owners);
      for (const { metadata } of garbage) seed.remove("Secret", metadata.name, metadata.namespace);
      return garbage.map(({ metadata }) => metadata.name);
    },
    resync() {
      for (const { metadata } of seed.list("ManagedResource"))
        running.look(`${metadata.namespace}/${metadata.name}`);
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

function targetOf(server: ApiServer | undefined): ResourceTarget {
  return {
    apply: (object) => server?.seed([object as ApiObjectInit]),
    remove: ({ kind, metadata }) => server?.remove(kind, metadata.name, metadata.namespace),
  };
}
