// SPDX-License-Identifier: Apache-2.0
/** Registries that ask for credentials, and registries that answer oddly, behind a mirror whose requests are recorded. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type Proxy, type Rig, type RigImage, startProxy } from "../kit/node-rig/index.ts";
import type { Registry } from "../kit/registry/index.ts";
import { MIB, openNodes } from "./testing.ts";

const RECORDER_PORT = 5006;
const SECOND_PORT = 5443;
const FIRST = { username: "first-user", password: "first-secret-9f3a" };
const SECOND = { username: "second-user", password: "second-secret-71bc" };
const signal = AbortSignal.timeout(200_000);

describe("registries with credentials of their own, and mirrors whose requests are recorded", () => {
  let rig: Rig;
  let second: Registry;
  const recorders: Proxy[] = [];
  const stack = new AsyncDisposableStack();

  before(async () => {
    rig = stack.use(await openNodes(3, { authentication: { scheme: "bearer", ...FIRST }, signal }));
    second = stack.use(await rig.startUpstream(SECOND_PORT, { scheme: "basic", ...SECOND }));
    for (const [index, { namespace }] of rig.containerds.entries()) {
      recorders.push(
        stack.use(await startProxy(namespace, { port: RECORDER_PORT, intercept: true, signal })),
      );
      await rig.spegels[index]?.setMirror(true, RECORDER_PORT);
    }
  });
  after(() => stack.disposeAsync());

  const pull = (node: number, name: string, auth?: typeof FIRST): Promise<string> => {
    const containerd = rig.containerds[node];
    if (containerd === undefined) throw new Error(`no node ${node}`);
    return containerd.cri.pull(name, auth);
  };
  const newImage = (name: string): Promise<RigImage> =>
    rig.addImage(`private/${name}`, "1", { seed: name, layerSizesBytes: [2 * MIB, MIB] });

  it("take each pull's own credentials upstream, by token and by password", async () => {
    const image = await newImage("both");
    await second.push(image.layout, "1", image.repository, { signal });
    const other = image.name.replace("/", `:${SECOND_PORT}/`);
    for (const node of [0, 1, 2]) {
      await pull(node, image.name, FIRST);
      await pull(node, other, SECOND);
      if (node === 0) await rig.untilShared(image, 0);
    }
    // The first node went upstream for everything, the others found it with their neighbours.
    const [address] = rig.containerds.map((each) => each.namespace.address);
    const blobs = rig.registry
      .requests()
      .filter((each) => each.method === "GET" && each.path.includes(`/${image.repository}/blobs/`))
      .filter((each) => each.status === 200);
    assert.deepEqual(new Set(blobs.map((each) => each.client)), new Set([address]));
  });

  it("refuse wrong credentials for what nobody has, as without a mirror", async () => {
    const image = await newImage("refused");
    for (const node of [0, 1, 2]) {
      await assert.rejects(pull(node, image.name, { ...FIRST, password: "wrong-secret-0000" }));
      await assert.rejects(pull(node, image.name));
      await assert.rejects(pull(node, image.name, SECOND));
    }
    await pull(1, image.name, FIRST);
  });

  it("may leave out Content-Length or take their time: the pull succeeds and the image is shared", async () => {
    for (const fault of [{ kind: "no-content-length" }, { kind: "late", delayMs: 600 }] as const) {
      for (const first of rig.containerds.keys()) {
        const image = await newImage(`${fault.kind}-${first}`);
        {
          using _odd = rig.registry.fail({ match: ({ path }) => path.includes(image.repository), fault });
          await pull(first, image.name, FIRST);
        }
        await rig.untilShared(image, first);
        await rig.network.setUpstreamAvailable(false);
        try {
          for (const node of rig.containerds.keys()) await pull(node, image.name, FIRST);
        } finally {
          await rig.network.setUpstreamAvailable(true);
        }
      }
    }
  });

  it("may say that there are no bytes: a pull ends as without the mirror, and what a node has is shared", async () => {
    for (const [what, match] of Object.entries({
      heads: ({ method, path }: { method: string; path: string }) =>
        method === "HEAD" && path.includes("/manifests/"),
      blobs: ({ method, path }: { method: string; path: string }) =>
        method === "GET" && path.includes("/blobs/"),
    })) {
      const shared = await newImage(`zero-${what}`);
      await pull(0, shared.name, FIRST);
      await rig.untilShared(shared, 0);
      using _odd = rig.registry.fail({ match, fault: { kind: "zero-content-length" } });
      for (const [node, spegel] of rig.spegels.entries()) {
        const outcomes: string[] = [];
        for (const enabled of [false, true]) {
          const image = await newImage(`zero-${what}-${node}-${enabled}`);
          await spegel.setMirror(enabled, RECORDER_PORT);
          outcomes.push(
            await pull(node, image.name, FIRST).then(
              () => "pulled",
              () => "not pulled",
            ),
          );
        }
        assert.equal(outcomes[1], outcomes[0], `${what}, containerd ${rig.containerds[node]?.version}`);
        await pull(node, shared.name, FIRST);
      }
    }
  });

  it("are the only ones that ever see a credential: no mirror, no peer and no log does", async () => {
    const image = await newImage("seen");
    await assert.rejects(pull(0, image.name, { username: "?", password: "wrong-secret-0000" }));
    await pull(0, image.name, FIRST);
    await rig.untilShared(image, 0);
    for (const node of [1, 2]) await pull(node, image.name, FIRST);
    const all = recorders.flatMap((recorder) => recorder.requests());
    const fromPeers = all.filter((request) => request.headers["x-spegel-mirrored"] === "true");
    assert.ok(fromPeers.length > 0 && all.length > fromPeers.length, `${fromPeers.length} of ${all.length}`);
    for (const { url, headers } of all) {
      assert.equal(headers["authorization"], undefined, url);
      assert.equal(headers["cookie"], undefined, url);
    }
    const told = [
      JSON.stringify(all),
      ...rig.spegels.flatMap((spegel) => spegel.process.output.lines.map((line) => line.text)),
    ].join("\n");
    for (const { username, password } of [FIRST, SECOND, { username: "?", password: "wrong-secret-0000" }]) {
      assert.ok(!told.includes(password));
      assert.ok(!told.includes(Buffer.from(`${username}:${password}`).toString("base64")));
    }
    assert.ok(!/bearer /i.test(told));
  });
});
