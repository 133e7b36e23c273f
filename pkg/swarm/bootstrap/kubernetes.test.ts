// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { errorMessage, hasCode } from "#errors";
import { type ApiServer, type PolicyRule, startApiServer } from "#kit/api-server";
import { createKubeClient, type KubeClient, loadKubeConfig } from "#kube";
import { createLogger, silentLogger } from "#log";
import { eventually } from "#routing/testing";
import type { Swarm } from "../swarm.ts";
import { addressOf, openNode } from "../testing/nodes.ts";
import { createKubernetesBootstrap } from "./kubernetes.ts";
import type { BootstrapPeer, BootstrapSource } from "./source.ts";

const IDS = [
  "12D3KooWGRUfp5aa7gKGYFf4dXLnNFDRSr6NqxdKPXj9AnRnLGqZ",
  "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB",
] as const;
const NAMESPACE = "spegel";
const LEASE = "spegel-leader-election";
/** What charts/spegel grants. */
const RULES: readonly PolicyRule[] = [
  { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create"], namespaces: [NAMESPACE] },
  {
    apiGroups: ["coordination.k8s.io"],
    resources: ["leases"],
    resourceNames: [LEASE],
    verbs: ["get", "update"],
    namespaces: [NAMESPACE],
  },
];

const addressIn = (i: 0 | 1): string => `/ip4/10.0.0.${i + 1}/tcp/5001`;
const identityIn = (i: 0 | 1): string => `${addressIn(i)}/p2p/${IDS[i]}`;
const peerIn = (i: 0 | 1): BootstrapPeer => ({ id: IDS[i], addresses: [addressIn(i)] });

let server: ApiServer;
let account: string;
/** Added to every candidate's clock. */
let laterMs: number;
let live: AsyncDisposableStack;

beforeEach(async () => {
  live = new AsyncDisposableStack();
  server = live.use(
    await startApiServer({
      users: [{ name: "system:serviceaccount:spegel:spegel", token: "first", rules: RULES }],
    }),
  );
  server.seed([{ apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE } }]);
  account = await mkdtemp(join(tmpdir(), "service-account-"));
  live.defer(() => rm(account, { recursive: true }));
  await writeFile(join(account, "ca.crt"), server.caCertificate);
  await writeFile(join(account, "token"), "first\n");
  laterMs = 0;
});
afterEach(() => live.disposeAsync());

/** As a pod is given it. */
async function openClient(): Promise<KubeClient> {
  const { hostname, port } = new URL(server.url);
  const connection = await loadKubeConfig({
    env: { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port },
    serviceAccountDirectory: account,
  });
  return createKubeClient(connection, { userAgent: "spegel", maxResponseBytes: 64 * 1024 });
}

interface SourceOptions {
  readonly open?: () => Promise<KubeClient>;
  readonly log?: string[];
  readonly namespace?: string;
  readonly renewDeadlineMs?: number;
}

function createSource(options: SourceOptions = {}): BootstrapSource {
  const { log } = options;
  return createKubernetesBootstrap(
    {
      openClient: options.open ?? openClient,
      logger:
        log === undefined
          ? silentLogger
          : createLogger({ level: "WARN", sink: { write: (line) => void log.push(line) } }),
      monotonicNow: () => performance.now() + laterMs,
      random: () => 0,
    },
    {
      namespace: options.namespace ?? NAMESPACE,
      name: LEASE,
      defaultPort: 5001,
      renewDeadlineMs: options.renewDeadlineMs ?? 9_000,
      retryPeriodMs: 5,
    },
  );
}

interface Node extends AsyncDisposable {
  readonly source: BootstrapSource;
  peers(): Promise<BootstrapPeer[]>;
}

/** A source at work for a node with that address, or those that it has at the time. */
function startNode(identity: string | (() => readonly string[]), options: SourceOptions = {}): Node {
  const source = createSource(options);
  const stop = new AbortController();
  const self = typeof identity === "string" ? () => [identity] : identity;
  const running = source.run?.({ self }, { signal: stop.signal });
  const node = {
    source,
    peers: () => source.peers({ signal: AbortSignal.timeout(30_000) }),
    async [Symbol.asyncDispose]() {
      stop.abort(new Error("stopped"));
      await running;
    },
  };
  return live.use(node);
}

const spec = (): Record<string, unknown> =>
  (server.get("Lease", LEASE, NAMESPACE)?.["spec"] ?? {}) as Record<string, unknown>;
const holder = (): unknown => spec()["holderIdentity"];

function seedLease(fields: Record<string, unknown>): void {
  server.seed([
    {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { name: LEASE, namespace: NAMESPACE },
      spec: fields,
    },
  ]);
}

const failsWith =
  (...patterns: readonly RegExp[]) =>
  (error: unknown): boolean => {
    assert.ok(hasCode(error, "SWARM_BOOTSTRAP_FAILED"));
    for (const pattern of patterns) assert.match(errorMessage(error), pattern);
    return true;
  };

describe("Kubernetes bootstrap", () => {
  it("makes the first node the leader, under its address as Spegel writes it", async () => {
    const node = startNode(identityIn(0));
    assert.deepEqual(await node.peers(), [peerIn(0)]);
    const { acquireTime, renewTime, ...rest } = spec();
    assert.deepEqual(rest, {
      holderIdentity: identityIn(0),
      leaseDurationSeconds: 10,
      leaseTransitions: 0,
    });
    for (const time of [acquireTime, renewTime])
      assert.match(String(time), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  });

  it("tells the second node where the first one is, and keeps the first one in office", async () => {
    const first = startNode(identityIn(0));
    await first.peers();
    const renewed = spec()["renewTime"];
    const second = startNode(identityIn(1));
    assert.deepEqual(await second.peers(), [peerIn(0)]);
    await eventually(
      () => spec()["renewTime"],
      (time) => time !== renewed,
    );
    assert.equal(holder(), identityIn(0));
    assert.equal(spec()["leaseTransitions"], 0);
  });

  it("follows at once when the leader leaves, and after the lease's duration when it dies", async () => {
    const first = startNode(identityIn(0));
    await first.peers();
    const second = startNode(identityIn(1));
    await second.peers();
    await first[Symbol.asyncDispose]();
    await eventually(holder, (name) => name === identityIn(1));
    assert.deepEqual(await second.peers(), [peerIn(1)]);
    assert.equal(spec()["leaseTransitions"], 1);

    seedLease({ ...spec(), holderIdentity: identityIn(0), renewTime: "2001-01-01T00:00:00.000000Z" });
    await eventually(second.peers, ([peer]) => peer?.id === IDS[0]);
    server.clearRequests();
    await eventually(
      () => server.requests.length,
      (count) => count > 5,
    );
    assert.equal(holder(), identityIn(0), "an old renewTime alone proves nothing: clocks differ");
    laterMs += 10_001;
    await eventually(second.peers, ([peer]) => peer?.id === IDS[1]);
    assert.equal(holder(), identityIn(1));
    assert.equal(spec()["leaseTransitions"], 2);
  });

  it("keeps its name while that address is there, and leads under another one when it is gone", async () => {
    let own: readonly string[] = [identityIn(0)];
    startNode(() => own);
    await eventually(holder, (name) => name === identityIn(0));
    own = [identityIn(1), identityIn(0)];
    const renewed = spec()["renewTime"];
    await eventually(
      () => spec()["renewTime"],
      (time) => time !== renewed,
    );
    assert.equal(holder(), identityIn(0));
    own = [identityIn(1)];
    server.clearRequests();
    await eventually(
      () => server.requests.length,
      (count) => count > 5,
    );
    laterMs += 10_001;
    await eventually(holder, (name) => name === identityIn(1));
  });

  it("looks on without an address, and runs as soon as it has one", async () => {
    let own: readonly string[] = [];
    const node = startNode(() => own);
    await eventually(
      () => server.requests.length,
      (count) => count > 3,
    );
    assert.equal(server.get("Lease", LEASE, NAMESPACE), undefined);
    own = [identityIn(0)];
    assert.deepEqual(await node.peers(), [peerIn(0)]);
  });

  it("says which right is missing, where, and for whom, and goes on when it is granted", async () => {
    await writeFile(join(account, "token"), "poor");
    const poor = server.addUser({ name: "poor", token: "poor", rules: [] });
    const log: string[] = [];
    const node = startNode(identityIn(0), { log });
    const complaint = [
      /"poor" cannot get resource "leases" in API group "coordination\.k8s\.io" in the namespace "spegel"/,
      /a Role in namespace spegel has to allow get, create and update of leases/,
    ];
    await assert.rejects(node.peers(), failsWith(...complaint));
    await assert.rejects(node.peers(), failsWith(...complaint));
    assert.equal(log.length, 1, "the same failure is told once");
    for (const pattern of complaint) assert.match(JSON.parse(log[0] ?? "{}").err, pattern);
    poor[Symbol.dispose]();
    live.use(server.addUser({ name: "poor", token: "poor", rules: RULES }) as unknown as AsyncDisposable);
    await eventually(holder, (name) => name === identityIn(0));
  });

  it("says that its namespace does not exist", async () => {
    live.use(server.addUser({ name: "all", token: "all", rules: "admin" }) as unknown as AsyncDisposable);
    await writeFile(join(account, "token"), "all");
    const node = startNode(identityIn(0), { namespace: "elsewhere" });
    await assert.rejects(
      node.peers(),
      failsWith(/"elsewhere" not found/, /namespace elsewhere has to exist/),
    );
  });

  it("says when the Lease belongs to something else, and takes it over when that is gone", async () => {
    for (const identity of [
      "kube-controller-manager_5c1b",
      "/ip4/300.1.1.1/tcp/1",
      "/unix/x",
      "x".repeat(2_000),
    ]) {
      const name = identity.slice(0, 4);
      seedLease({ holderIdentity: identity, leaseDurationSeconds: 15 });
      await using node = startNode(identityIn(0));
      await assert.rejects(node.peers(), failsWith(/Lease spegel\/spegel-leader-election is held by/), name);
      laterMs += 15_001;
      await eventually(holder, (current) => current === identityIn(0));
      assert.deepEqual(await node.peers(), [peerIn(0)]);
    }
  });

  it("takes a Lease whose fields are missing or make no sense for nobody's, or for one of its own duration", async () => {
    for (const fields of [
      {},
      { holderIdentity: "" },
      { holderIdentity: 5, leaseTransitions: "many" },
      { holderIdentity: null, leaseDurationSeconds: "x" },
    ]) {
      seedLease(fields);
      await using node = startNode(identityIn(0));
      assert.deepEqual(await node.peers(), [peerIn(0)], JSON.stringify(fields));
      assert.ok(Number.isSafeInteger(spec()["leaseTransitions"]));
    }
    for (const leaseDurationSeconds of [0, -5, 1e12, "x", undefined]) {
      seedLease({ holderIdentity: identityIn(1), leaseDurationSeconds });
      await using node = startNode(identityIn(0));
      assert.deepEqual(await node.peers(), [peerIn(1)]);
      laterMs += 3_600_001;
      await eventually(holder, (name) => name === identityIn(0));
    }
  });

  it("survives any number of wrong answers", async () => {
    const wrong = [
      "",
      "<html>",
      "5",
      "null",
      "[]",
      "{}",
      `{"metadata":5}`,
      `"${"x".repeat(100_000)}"`,
      "\u0000",
    ];
    for (const body of wrong) server.faults.inject({ path: /leases/, times: 1 }, { body });
    for (const status of [301, 400, 418, 500, 502, 503])
      server.faults.inject({ path: /leases/, times: 1 }, { status });
    server.faults.inject({ path: /leases/, times: 2 }, "reset");
    server.faults.inject({ path: /leases/, times: 1 }, { status: 429, retryAfterSeconds: 0 });
    const node = startNode(identityIn(0));
    await eventually(holder, (name) => name === identityIn(0));
    assert.deepEqual(await node.peers(), [peerIn(0)]);
  });

  it("does not read an answer of any size", async () => {
    const lease = { metadata: { name: LEASE }, spec: { holderIdentity: "x".repeat(100_000) } };
    using _large = server.faults.inject({ path: /leases/ }, { body: JSON.stringify(lease) });
    const node = startNode(identityIn(0));
    await assert.rejects(node.peers(), failsWith(/larger than 65536 bytes/));
  });

  it("waits for an API server that never answers no longer than a leader may go without renewing", async () => {
    using silence = server.faults.inject({ path: /leases/ }, "hang");
    const node = startNode(identityIn(0), { renewDeadlineMs: 20 });
    await assert.rejects(node.peers(), failsWith(/no answer in time/));
    silence[Symbol.dispose]();
    const other = startNode(identityIn(1));
    assert.equal((await other.peers()).length, 1);
  });

  it("stops waiting with its signal", async () => {
    using _silence = server.faults.inject({ path: /leases/ }, "hang");
    const node = startNode(identityIn(0));
    const stop = new AbortController();
    const asked = node.source.peers({ signal: stop.signal });
    stop.abort(new Error("enough"));
    await assert.rejects(asked, failsWith(/enough/));
  });

  it("goes on with the token that the kubelet renewed, and with a new authority", async () => {
    const node = startNode(identityIn(0));
    await node.peers();
    await writeFile(join(account, "token"), "second");
    live.use(server.addUser({ name: "same", token: "second", rules: RULES }) as unknown as AsyncDisposable);
    const old = server.addUser({ name: "same", token: "first", rules: RULES });
    old[Symbol.dispose](); // from now on unknown: 401
    const renewed = spec()["renewTime"];
    await eventually(
      () => spec()["renewTime"],
      (time) => time !== renewed,
    );
    assert.equal(holder(), identityIn(0));

    const opened: string[] = [];
    await writeFile(
      join(account, "ca.crt"),
      "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n",
    );
    const late = startNode(identityIn(1), {
      open: () => {
        opened.push("client");
        return openClient();
      },
    });
    await assert.rejects(late.peers(), failsWith(/cannot learn/));
    await writeFile(join(account, "ca.crt"), server.caCertificate);
    await eventually(
      () => late.peers().catch(() => []),
      (peers) => peers.length > 0,
    );
    assert.ok(opened.length > 1);
  });

  it("says which file of the service account is missing, and finds it later", async () => {
    await rm(join(account, "ca.crt"));
    const node = startNode(identityIn(0));
    await assert.rejects(node.peers(), failsWith(/ca\.crt/));
    await writeFile(join(account, "ca.crt"), server.caCertificate);
    await eventually(holder, (name) => name === identityIn(0));
  });
});

describe("a swarm that joins by leader election", () => {
  it("begins with one node that is ready alone, grows, and still takes nodes in when the leader is gone", async () => {
    const start = async (ip: string): Promise<Swarm> => live.use(await openNode(`${ip}:0`, createSource()));
    const first = await start("127.0.0.21");
    await eventually(() => first.ready(), Boolean);
    assert.equal(first.peerCount(), 0);
    assert.equal(holder(), addressOf(first));
    const [second, third] = await Promise.all([start("127.0.0.22"), start("127.0.0.23")]);
    await eventually(
      () => [first, second, third].map((node) => node.peerCount()),
      (counts) => counts.every((count) => count === 2),
    );
    await first[Symbol.asyncDispose]();
    await eventually(holder, (name) => name === addressOf(second) || name === addressOf(third));
    const fourth = await start("127.0.0.24");
    await eventually(
      () => [second, third, fourth].map((node) => node.peerCount()),
      (counts) => counts.every((count) => count === 2),
    );
    assert.ok([second, third, fourth].every((node) => node.ready()));
  });
});
