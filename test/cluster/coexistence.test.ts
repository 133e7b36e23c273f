// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { OperatingSystemConfig } from "#api/gardener";
import { validateOSC } from "#kit/node-agent";
import { NAMESPACES } from "#kube";
import { type Landscape, startLandscape } from "./landscape.ts";
import { type Installation, installExtension } from "./run-extension.ts";
import { OSCS } from "./stand-ins/gardenlet.ts";
import {
  CACHE_HOST,
  CACHE_LABEL,
  CACHED_UPSTREAM,
  MIRROR_HOST,
  MIRRORED_UPSTREAM,
  startRegistryCache,
} from "./stand-ins/registry-cache.ts";

const LOCAL = "http://localhost:5000";

describe("beside the webhook of registry-cache, ours", { timeout: 200_000 }, () => {
  let landscape: Landscape;
  let installation: Installation;
  let namespace: string;
  const parts = new AsyncDisposableStack();

  before(async () => {
    landscape = parts.use(await startLandscape());
    installation = parts.use(await installExtension(landscape));
    parts.use(await installation.open());
    await installation.service.ready(1, landscape);
    namespace = await landscape.gardenlet.addShoot();
    await landscape.gardenlet.enable(namespace);
    await landscape.gardenlet.awaitReady(namespace);
    await landscape.gardenlet.writeOSC(namespace, { pool: "warm-up" });
    await landscape.gardenlet.client.mergePatch(
      NAMESPACES,
      { name: namespace },
      { metadata: { labels: { [CACHE_LABEL]: "true" } } },
      landscape,
    );
  });
  after(() => parts.disposeAsync());

  const hostsOf = (osc: OperatingSystemConfig): Record<string, string[]> =>
    Object.fromEntries(
      (osc.spec.criConfig?.containerd?.registries ?? []).map(({ upstream, hosts }) => [
        upstream,
        (hosts ?? []).map(({ url }) => url),
      ]),
    );
  /** The API server reads webhook configurations from a cache: writes until the other webhook takes part. */
  async function writeOnceCached(pool: string): Promise<OperatingSystemConfig> {
    for (;;) {
      const osc = await landscape.gardenlet.writeOSC(namespace, { pool });
      if (hostsOf(osc)[CACHED_UPSTREAM] !== undefined) return osc;
      landscape.signal.throwIfAborted();
    }
  }

  const orders = [
    { configurationName: "gardener-extension-registry-cache", reinvocationPolicy: "Never" },
    { configurationName: "gardener-extension-shoot-cache", reinvocationPolicy: "Never" },
    { configurationName: "gardener-extension-registry-cache", reinvocationPolicy: "IfNeeded" },
  ] as const;
  for (const order of orders) {
    const { configurationName, reinvocationPolicy } = order;
    it(`comes first in each entry with ${configurationName}, reinvoked ${reinvocationPolicy}`, async () => {
      await using _cache = await startRegistryCache(landscape.seed.admin, order);
      const osc = await writeOnceCached(
        `${configurationName.split("-").at(-1)}-${reinvocationPolicy.toLowerCase()}`,
      );
      assert.deepEqual(validateOSC(osc), []);
      assert.deepEqual(hostsOf(osc), {
        _default: [LOCAL],
        [CACHED_UPSTREAM]: [LOCAL, CACHE_HOST],
        [MIRRORED_UPSTREAM]: [LOCAL, MIRROR_HOST],
      });
      const entryOf = (name: string) =>
        osc.spec.criConfig?.containerd?.registries?.find(({ upstream }) => upstream === name);
      const cached = entryOf(CACHED_UPSTREAM);
      assert.equal(cached?.server, "https://ghcr.io");
      assert.equal(cached?.readinessProbe, true);
      assert.deepEqual(cached?.hosts?.[1]?.caCerts, ["/etc/containerd/certs.d/ca-bundle.pem"]);
      const mirrored = entryOf(MIRRORED_UPSTREAM);
      assert.equal(mirrored?.server, "https://registry-1.docker.io");
      assert.equal(mirrored?.readinessProbe, undefined);
      assert.deepEqual(mirrored?.hosts, [
        { url: LOCAL, capabilities: ["pull"] },
        { url: MIRROR_HOST, capabilities: ["pull"], overridePath: true },
      ]);
      const touched = await landscape.gardenlet.client.mergePatch(
        OSCS,
        osc.metadata,
        { metadata: { labels: { touched: "yes" } } },
        landscape,
      );
      assert.deepEqual(touched.spec, osc.spec, "a writer of labels changes nothing for the nodes");
      const pool = osc.metadata.name.replace(/^gardener-node-agent-(.*)-6f7f.*$/, "$1");
      assert.deepEqual((await landscape.gardenlet.writeOSC(namespace, { pool })).spec, osc.spec);
    });
  }

  it("leaves the entry to a configuration that sorts later and replaces it again when it is reinvoked", async () => {
    const order = {
      configurationName: "gardener-extension-shoot-cache",
      reinvocationPolicy: "IfNeeded",
    } as const;
    await using _cache = await startRegistryCache(landscape.seed.admin, order);
    const osc = await writeOnceCached("last-word");
    assert.deepEqual(validateOSC(osc), []);
    // Each is called twice and the other one last: pulls of this upstream work, without the mirror.
    assert.deepEqual(hostsOf(osc), {
      _default: [LOCAL],
      [CACHED_UPSTREAM]: [CACHE_HOST],
      [MIRRORED_UPSTREAM]: [MIRROR_HOST],
    });
    assert.deepEqual((await landscape.gardenlet.writeOSC(namespace, { pool: "last-word" })).spec, osc.spec);
  });

  it("loses nothing of what registry-cache wants when it is the one that goes", async () => {
    const order = {
      configurationName: "gardener-extension-registry-cache",
      reinvocationPolicy: "Never",
    } as const;
    await using _cache = await startRegistryCache(landscape.seed.admin, order);
    await writeOnceCached("going");
    await landscape.gardenlet.disable(namespace);
    try {
      const osc = await landscape.gardenlet.writeOSC(namespace, { pool: "going" });
      assert.deepEqual(hostsOf(osc), {
        [CACHED_UPSTREAM]: [CACHE_HOST],
        [MIRRORED_UPSTREAM]: [MIRROR_HOST],
      });
    } finally {
      await landscape.gardenlet.enable(namespace);
      await landscape.gardenlet.awaitReady(namespace);
    }
  });
});
