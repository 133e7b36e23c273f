// SPDX-License-Identifier: Apache-2.0
/** Daemons that find each other by the Lease of a real API server, with the rights that the chart gives them alone. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { sleep } from "#async";
import { openHelm, parseObjects } from "../chart/helm.ts";
import { anyFree } from "../demo/free-ports.ts";
import {
  type APIServerFront,
  buildKubeParts,
  createRawClient,
  type KubeAPIServer,
  openFront,
  type RawClient,
  startEtcd,
  startKubeAPIServer,
} from "../kit/kube-parts/index.ts";
import { type RunningProcess, startProcess } from "../kit/process/index.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const NAMESPACE = "mirrors";
const LEASE = "spegel-leader-election";
const LEASES = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases`;
const signal = AbortSignal.timeout(600_000);

interface Daemon {
  readonly address: string;
  readonly process: RunningProcess;
}

interface LeaseSpec {
  readonly holderIdentity: string;
  readonly leaseDurationSeconds: number;
  readonly leaseTransitions: number;
  readonly renewTime: string;
}

describe("daemons that elect a leader", { timeout: 290_000 }, () => {
  const parts = new AsyncDisposableStack();
  let directory: string;
  let server: KubeAPIServer;
  let front: APIServerFront;
  let admin: RawClient;
  let token: string;
  let ports: { readonly registry: number; readonly router: number; readonly metrics: number };
  const addresses = ["127.0.0.41", "127.0.0.42", "127.0.0.43", "127.0.0.44"] as const;

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "leader-election-"));
    parts.defer(() => rm(directory, { recursive: true, force: true }));
    const [helm, paths] = await Promise.all([openHelm(), buildKubeParts({ report: console.log, signal })]);
    const etcd = parts.use(await startEtcd({ path: paths.etcd, signal }));
    server = parts.use(
      await startKubeAPIServer({ path: paths.kubeAPIServer, etcdURL: etcd.url, prefix: "registry", signal }),
    );
    front = parts.use(await openFront(server));
    admin = parts.use(createRawClient(server));
    const rendered = await helm.template(`${ROOT}charts/spegel`, [
      `--values=${ROOT}charts/spegel/ci/kubernetes-values.yaml`,
    ]);
    assert.ok(rendered.ok, rendered.output);
    const rights = parseObjects(rendered.output).filter(({ kind }) => kind.startsWith("Role"));
    assert.equal(rights.length, 2);
    await admin.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } }, "test");
    for (const object of rights) await admin.apply(object, "test");
    token = await admin.requestToken({ namespace: NAMESPACE, name: "spegel" });
    const free = [await anyFree(addresses), await anyFree(addresses), await anyFree(addresses)] as const;
    ports = { registry: free[0], router: free[1], metrics: free[2] };
  });
  after(() => parts.disposeAsync());
  /** What another test has left. */
  async function beginAnew(): Promise<void> {
    await admin.call("DELETE", `${LEASES}/${LEASE}`);
    front.clearRequests();
  }

  async function startDaemon(
    address: string,
    options: { readonly token?: string; readonly ready?: boolean } = {},
  ): Promise<Daemon> {
    const folder = join(directory, address);
    await mkdir(join(folder, "layout"), { recursive: true });
    await writeFile(join(folder, "token"), options.token ?? token);
    await writeFile(join(folder, "kubeconfig"), front.kubeconfig({ tokenFile: join(folder, "token") }));
    const process_ = await startProcess({
      name: `spegel on ${address}`,
      command: process.execPath,
      args: [
        "--experimental-ffi",
        "--disable-warning=ExperimentalWarning",
        `${ROOT}cmd/spegel/main.ts`,
        "registry",
        `--store=oci-layout:${join(folder, "layout")}`,
        `--registry-addr=${address}:${ports.registry}`,
        `--router-addr=${address}:${ports.router}`,
        `--metrics-addr=${address}:${ports.metrics}`,
        "--bootstrap-kind=kubernetes",
        `--kubeconfig-path=${join(folder, "kubeconfig")}`,
        `--leader-election-namespace=${NAMESPACE}`,
        `--leader-election-name=${LEASE}`,
      ],
      ready:
        options.ready === false
          ? { kind: "line", pattern: /leader election failed/ }
          : { kind: "http", url: `http://${address}:${ports.registry}/readyz` },
      readyTimeoutMs: 60_000,
      signal,
    });
    parts.use(process_);
    return { address, process: process_ };
  }

  async function lease(): Promise<LeaseSpec> {
    const found = await admin.find("coordination.k8s.io/v1", "Lease", LEASE, NAMESPACE);
    return (found?.["spec"] ?? {}) as LeaseSpec;
  }

  async function awaitLeader(isWanted: (holder: string) => boolean): Promise<LeaseSpec> {
    for (;;) {
      const spec = await lease();
      if (isWanted(spec.holderIdentity ?? "")) return spec;
      await sleep(50, { signal });
    }
  }

  const isAt =
    (address: string) =>
    (holder: string): boolean =>
      holder.startsWith(`/ip4/${address}/tcp/${ports.router}/p2p/`);

  async function isReady({ address }: Daemon): Promise<boolean> {
    return (await fetch(`http://${address}:${ports.registry}/readyz`, { signal })).ok;
  }

  async function awaitPeers({ address }: Daemon, count: number): Promise<void> {
    for (;;) {
      const text = await (await fetch(`http://${address}:${ports.metrics}/metrics`, { signal })).text();
      if (Number(/^spegel_swarm_peers (\d+)$/m.exec(text)?.[1]) === count) return;
      await sleep(50, { signal });
    }
  }

  it("are one swarm, whoever of them leads", async (t) => {
    await beginAnew();
    let first!: Daemon;
    let others!: Daemon[];

    await t.test("the first one leads, and is ready alone", async () => {
      first = await startDaemon(addresses[0]);
      const spec = await lease();
      assert.match(spec.holderIdentity, /^\/ip4\/127\.0\.0\.41\/tcp\/\d+\/p2p\/12D3KooW\w+$/);
      assert.equal(spec.leaseDurationSeconds, 10);
      assert.equal(spec.leaseTransitions, 0);
    });

    await t.test("the next two join at the leader", async () => {
      others = await Promise.all([startDaemon(addresses[1]), startDaemon(addresses[2])]);
      await Promise.all([first, ...others].map((daemon) => awaitPeers(daemon, 2)));
      assert.ok(isAt(addresses[0])((await lease()).holderIdentity));
    });

    await t.test("another one leads when the leader is killed, and new ones join there", async () => {
      first.process.kill("SIGKILL");
      await first.process.exited;
      const spec = await awaitLeader((holder) => !isAt(addresses[0])(holder));
      assert.equal(spec.leaseTransitions, 1);
      const late = await startDaemon(addresses[3]);
      await awaitPeers(late, 2);
      others.push(late);
    });

    await t.test("the chart's rights are enough for all of it", () => {
      assert.ok(front.requests.length > 0);
      assert.deepEqual(
        front.requests.filter(({ status }) => status >= 400 && ![404, 409].includes(status)),
        [],
      );
    });

    await t.test("they serve without the API server, and elect again when it is back", async () => {
      const { holderIdentity } = await lease();
      const leader = others.find(({ address }) => isAt(address)(holderIdentity));
      assert.ok(leader);
      await server.kill();
      try {
        // A leader gives up after 5 s without it.
        await leader.process.waitForLine(/leader election failed/, { timeoutMs: 60_000, signal });
        assert.deepEqual(await Promise.all(others.map(isReady)), [true, true, true]);
      } finally {
        await server.start({ signal });
      }
      const renewed = async (): Promise<string> => (await lease()).renewTime;
      const last = await renewed();
      while ((await renewed()) === last) await sleep(50, { signal });
    });

    await t.test("one that is stopped leaves the Lease to another at once", async () => {
      const { holderIdentity, leaseTransitions } = await lease();
      const leader = others.find(({ address }) => isAt(address)(holderIdentity));
      assert.ok(leader);
      const { code } = await leader.process.stop();
      assert.equal(code, 0);
      const spec = await awaitLeader((holder) => holder !== "" && holder !== holderIdentity);
      assert.ok(spec.leaseTransitions > leaseTransitions);
    });

    assert.deepEqual(front.warnings, []);
  });

  it("may do what they need with their own Lease, and nothing else", async () => {
    const status = async (method: string, path: string, body?: object): Promise<number> =>
      (await admin.call(method, path, { token, ...(body !== undefined && { body }) })).status;
    const other = { metadata: { name: "other" }, spec: { holderIdentity: "admin" } };
    const made = await admin.call("POST", LEASES, { body: other });
    assert.ok(made.status === 201 || made.status === 409);
    for (const [method, path, body] of [
      ["GET", LEASES],
      ["GET", `${LEASES}/other`],
      ["PUT", `${LEASES}/other`, other],
      ["DELETE", `${LEASES}/${LEASE}`],
      ["GET", `/apis/coordination.k8s.io/v1/namespaces/default/leases/${LEASE}`],
      ["POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases", other],
      ["GET", `/api/v1/namespaces/${NAMESPACE}/secrets`],
      ["GET", "/api/v1/nodes"],
    ] as const) {
      assert.equal(await status(method, path, body), 403, `${method} ${path}`);
    }
  });

  it("say which right is missing, and go on when they get it", async () => {
    await beginAnew();
    const poor = await admin.requestToken({ namespace: NAMESPACE, name: "poor" });
    const daemon = await startDaemon("127.0.0.45", { token: poor, ready: false });
    const line = await daemon.process.waitForLine(/leader election failed/, { timeoutMs: 10_000, signal });
    const { err } = JSON.parse(line) as { readonly err: string };
    assert.match(
      err,
      /cannot get resource "leases" in API group "coordination\.k8s\.io" in the namespace "mirrors"/,
    );
    assert.match(err, /a Role in namespace mirrors has to allow get, create and update of leases/);
    assert.equal(await isReady(daemon), false);
    await admin.apply(
      {
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "RoleBinding",
        metadata: { name: "poor", namespace: NAMESPACE },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: LEASE },
        subjects: [{ kind: "ServiceAccount", name: "poor", namespace: NAMESPACE }],
      },
      "test",
    );
    while (!(await isReady(daemon))) await sleep(50, { signal });
    await daemon.process.stop();
  });
});
