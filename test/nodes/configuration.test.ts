// SPDX-License-Identifier: Apache-2.0
/** What `spegel configuration` writes into certs.d, as containerd of each generation reads it. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { promisify } from "node:util";
import {
  type ContainerdNode,
  type ProxiedRequest,
  type Proxy,
  type Rig,
  type RigImage,
  startProxy,
  UPSTREAM,
} from "../kit/node-rig/index.ts";
import { startProcess } from "../kit/process/index.ts";
import { MIB, openNodes } from "./testing.ts";

const execute = promisify(execFile);
const NODES = 3;
const RECORDER_PORT = 5006;
const KEPT_PORT = 5443;
const TARGET = `--mirror-targets=http://127.0.0.1:${RECORDER_PORT}`;
const signal = AbortSignal.timeout(200_000);

describe("containerd under what spegel configuration writes", () => {
  let rig: Rig;
  const recorders: Proxy[] = [];
  const stack = new AsyncDisposableStack();
  before(async () => {
    rig = stack.use(await openNodes(NODES, { signal }));
    for (const { namespace } of rig.containerds)
      recorders.push(
        stack.use(await startProxy(namespace, { port: RECORDER_PORT, intercept: false, signal })),
      );
  });
  after(() => stack.disposeAsync());
  beforeEach(async () => {
    for (const { certsDirectory } of rig.containerds)
      for (const name of await readdir(certsDirectory))
        await rm(join(certsDirectory, name), { recursive: true });
  });

  /** Each node once, with a neighbour that has another generation. */
  function* nodes(): Generator<{
    readonly index: number;
    readonly node: ContainerdNode;
    readonly neighbour: number;
    /** What containerd asked the mirror since. */
    readonly asked: () => readonly ProxiedRequest[];
  }> {
    for (const [index, node] of rig.containerds.entries()) {
      const recorder = recorders[index];
      const before = recorder?.requests().length ?? 0;
      const asked = (): readonly ProxiedRequest[] => recorder?.requests().slice(before) ?? [];
      yield { index, node, neighbour: (index + 1) % NODES, asked };
    }
  }

  const configure = async (node: ContainerdNode, ...flags: string[]): Promise<void> => {
    await execute(
      "dist/spegel",
      ["configuration", `--containerd-registry-config-path=${node.certsDirectory}`, TARGET, ...flags],
      { signal },
    );
  };
  const newImage = (name: string): Promise<RigImage> =>
    rig.addImage(`configured/${name}`, "1", { seed: name, layerSizesBytes: [2 * MIB, MIB] });
  const registriesOf = (requests: readonly ProxiedRequest[]): ReadonlySet<string | null> =>
    new Set(requests.map(({ url }) => new URL(url, "http://mirror").searchParams.get("ns")));

  async function withoutUpstream(action: () => Promise<unknown>): Promise<void> {
    await rig.network.setUpstreamAvailable(false);
    try {
      await action();
    } finally {
      await rig.network.setUpstreamAvailable(true);
    }
  }

  it("asks the mirror for every registry, and gets from it what the registry cannot give", async () => {
    for (const { index, node, neighbour, asked } of nodes()) {
      await configure(node);
      const image = await newImage(`all-${index}`);
      const names = [image.name, image.name.replace(UPSTREAM, "docker.io")];
      for (const name of names) await rig.containerds[neighbour]?.cri.pull(name);
      await rig.untilShared(image, neighbour);
      await rig.untilShared({ ...image, registry: "docker.io" }, neighbour);
      await withoutUpstream(async () => {
        for (const name of names) await node.cri.pull(name);
      });
      assert.deepEqual(registriesOf(asked()), new Set([UPSTREAM, "docker.io"]), node.version);
    }
  });

  it("asks it for the registries that are named alone, and these themselves for what nobody has", async () => {
    for (const { index, node, asked } of nodes()) {
      await configure(node, "--mirrored-registries", `https://${UPSTREAM}`, "https://docker.io");
      assert.deepEqual(
        (await readdir(node.certsDirectory)).filter((name) => !name.startsWith("_")).toSorted(),
        ["docker.io", UPSTREAM],
      );
      const image = await newImage(`named-${index}`);
      for (const registry of [UPSTREAM, "docker.io", "second.example.test"])
        await node.cri.pull(image.name.replace(UPSTREAM, registry));
      assert.deepEqual(registriesOf(asked()), new Set([UPSTREAM, "docker.io"]), node.version);
    }
  });

  it("leaves tags to the registry with --resolve-tags=false, and gets the bytes from the mirror", async () => {
    for (const { index, node, neighbour, asked } of nodes()) {
      await configure(node, "--resolve-tags=false");
      const image = await newImage(`tags-${index}`);
      await rig.containerds[neighbour]?.cri.pull(image.name);
      await rig.untilShared(image, neighbour);
      const before = rig.registry.requests().length;
      await node.cri.pull(image.name);
      const upstream = rig.registry.requests().slice(before);
      assert.deepEqual(
        upstream.map(({ method, path }) => `${method} ${path}`),
        [`HEAD /v2/${image.repository}/manifests/1`],
        node.version,
      );
      assert.ok(asked().length > 0 && asked().every(({ url }) => url.includes("sha256:")), node.version);
    }
  });

  it("gives the mirrors the credentials that are theirs", async () => {
    const script =
      "mount -t tmpfs tmpfs /etc && mkdir -p /etc/secrets/basic-auth && cd /etc/secrets/basic-auth &&" +
      ' printf mirror-user > username && printf mirror-secret > password && cd "$0" && exec "$@"';
    for (const { index, node, asked } of nodes()) {
      const configuration = [
        "configuration",
        `--containerd-registry-config-path=${node.certsDirectory}`,
        TARGET,
      ];
      const words = ["--mount", "sh", "-c", script, process.cwd(), "dist/spegel", ...configuration];
      await execute("unshare", words, { signal });
      const image = await newImage(`credentials-${index}`);
      await node.cri.pull(image.name);
      const expected = `Basic ${Buffer.from("mirror-user:mirror-secret").toString("base64")}`;
      assert.ok(asked().length > 0);
      for (const { headers, url } of asked()) assert.equal(headers["authorization"], expected, url);
    }
  });

  it("goes on with the hosts that were there, and has them back after the clean-up", async () => {
    await using kept = await rig.startUpstream(KEPT_PORT);
    for (const { index, node, asked } of nodes()) {
      const path = join(node.certsDirectory, UPSTREAM, "hosts.toml");
      const existing = `# by hand\nserver = "https://${UPSTREAM}"\n[host."https://${UPSTREAM}:${KEPT_PORT}"]\n`;
      await mkdir(join(node.certsDirectory, UPSTREAM));
      await writeFile(path, existing);
      // Only the host that was there has them.
      const { layout } = await newImage(`kept-${index}`);
      for (const name of ["before", "with", "after"])
        await kept.push(layout, "1", `only-kept/${name}-${index}`, { signal });
      const pull = (name: string): Promise<string> =>
        node.cri.pull(`${UPSTREAM}/only-kept/${name}-${index}:1`);

      await pull("before");
      assert.equal(asked().length, 0);
      await configure(node, "--prepend-existing");
      await pull("with");
      assert.ok(kept.requests().some(({ path: asks }) => asks.includes(`only-kept/with-${index}/`)));
      const during = asked().length;
      assert.ok(during > 0, node.version);

      await using cleanup = await startProcess({
        name: "spegel cleanup",
        command: "dist/spegel",
        args: ["cleanup", `--containerd-registry-config-path=${node.certsDirectory}`, "--addr=127.0.0.1:0"],
        ready: { kind: "line", pattern: /The configuration is restored/ },
        readyTimeoutMs: 30_000,
        signal,
      });
      await cleanup.stop();
      assert.equal(await readFile(path, "utf8"), existing);
      assert.deepEqual(await readdir(node.certsDirectory), [UPSTREAM]);
      await pull("after");
      assert.equal(asked().length, during);
    }
  });
});
