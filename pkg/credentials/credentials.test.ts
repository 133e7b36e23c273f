// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { before, test } from "node:test";
import fc from "fast-check";
import { silentLogger } from "#log";
import { createKeyPair, isIssuedBy, type KeyPair, parseCertificate, parseCertificates } from "#pki";
import {
  type Credentials,
  type CredentialsConfig,
  type CredentialsDeps,
  ensureCredentials,
  LABEL,
  type NewSecret,
  pruneCredentials,
  type Rotation,
  removeCredentials,
  type SecretStore,
  type StoredSecret,
} from "./index.ts";

const DAY_MS = 24 * 3_600_000;
const START_MS = Date.UTC(2026, 7, 21, 10);
const cancel = { signal: new AbortController().signal };
const SERVER = "registry-spegel-bootstrapper-server";
const CLIENT = "registry-spegel-client";

const config: CredentialsConfig = {
  identity: "extension-registry-spegel",
  authority: { name: "ca-extension-registry-spegel", validityMs: 3650 * DAY_MS, persist: true },
  leaves: [
    {
      name: SERVER,
      usage: "server",
      commonName: "bootstrapper",
      dnsNames: ["spegel-foo--bar.example.org"],
      validityMs: 90 * DAY_MS,
    },
    { name: CLIENT, usage: "client", commonName: "node", validityMs: 365 * DAY_MS },
  ],
};

/** Making keys is slow and not the subject: a few serve for all certificates. */
let keys: KeyPair[] = [];
before(async () => {
  keys = await Promise.all([1, 2, 3, 4].map(() => createKeyPair({ bits: 2048 })));
});

interface World {
  nowMs: number;
  readonly store: SecretStore & { readonly secrets: Map<string, StoredSecret> };
  readonly deps: CredentialsDeps;
}

function world(firstKey = 0): World {
  let keyIndex = firstKey;
  const secrets = new Map<string, StoredSecret>();
  const self: World = {
    nowMs: START_MS,
    store: {
      secrets,
      list: async () => [...secrets.values()],
      async create(secret: NewSecret) {
        if (secrets.has(secret.name)) return "exists";
        secrets.set(secret.name, { ...secret, createdMs: Math.floor(self.nowMs / 1000) * 1000 });
        return "created";
      },
      async setLabels(name, changes) {
        const secret = secrets.get(name);
        if (!secret) return;
        const labels = Object.entries({ ...secret.labels, ...changes }).filter(([, value]) => value !== null);
        secrets.set(name, { ...secret, labels: Object.fromEntries(labels) as Record<string, string> });
      },
      delete: async (name) => void secrets.delete(name),
    },
    deps: {
      get store() {
        return self.store;
      },
      logger: silentLogger,
      now: () => self.nowMs,
      createKey: async () => keys[keyIndex++ % keys.length] as KeyPair,
    },
  };
  return self;
}

const noRotation: Rotation = { kind: "shoot" };
const phase = (name: string, lastInitiationTimeMs: number): Rotation => ({
  kind: "shoot",
  phase: name,
  lastInitiationTimeMs,
});

async function reconcile(world: World, rotation: Rotation = noRotation): Promise<Credentials> {
  const credentials = await ensureCredentials(world.deps, config, rotation, cancel);
  await pruneCredentials(world.deps, credentials, cancel);
  return credentials;
}

const trusts = (bundlePem: string, certificatePem: string | undefined, nowMs: number): boolean =>
  isIssuedBy(parseCertificate(certificatePem ?? ""), parseCertificates(bundlePem), nowMs);
const signers = (credentials: Credentials, leaf: string): boolean[] =>
  parseCertificates(credentials.bundle.pem).map((authority) =>
    parseCertificate(credentials.leaves[leaf]?.certificatePem ?? "").verify(authority.publicKey),
  );

test("the first run makes an authority, its bundle, a server and a client that trust each other", async () => {
  const w = world();
  const made = await reconcile(w);
  assert.deepEqual([...w.store.secrets.keys()].map((name) => name.replace(/-[0-9a-f]{8}$/, "-*")).sort(), [
    "ca-extension-registry-spegel-*",
    "ca-extension-registry-spegel-bundle-*",
    "registry-spegel-bootstrapper-server-*",
    "registry-spegel-client-*",
  ]);
  assert.ok(trusts(made.bundle.pem, made.leaves[SERVER]?.certificatePem, w.nowMs));
  assert.ok(trusts(made.bundle.pem, made.leaves[CLIENT]?.certificatePem, w.nowMs));
  const authority = [...w.store.secrets.values()].find(
    (secret) => secret.labels[LABEL.name] === config.authority.name,
  );
  assert.equal(parseCertificate(authority?.data["ca.crt"] ?? "").subject, `CN=${authority?.name}`);
  assert.deepEqual(
    { ...authority?.labels, "checksum-of-config": "-" },
    {
      name: "ca-extension-registry-spegel",
      "managed-by": "secrets-manager",
      "manager-identity": "extension-registry-spegel",
      "checksum-of-config": "-",
      "last-rotation-initiation-time": "",
      persist: "true",
      "issued-at-time": String(START_MS / 1000),
      "valid-until-time": String((START_MS + 3650 * DAY_MS) / 1000),
    },
  );
  const persisted = [...w.store.secrets.values()].filter((secret) => secret.labels[LABEL.persist] === "true");
  assert.equal(persisted.length, 1);
});

test("a second run changes nothing", async () => {
  const w = world();
  const first = await reconcile(w);
  const before = new Map(w.store.secrets);
  w.nowMs += DAY_MS;
  const second = await reconcile(w);
  assert.deepEqual(w.store.secrets, before);
  assert.deepEqual(second.leaves, first.leaves);
});

test("a rotation goes through its phases: two authorities trusted, then one", async () => {
  const w = world();
  const first = await reconcile(w);
  w.nowMs += DAY_MS;
  const startedMs = w.nowMs;
  const preparing = await reconcile(w, phase("Preparing", startedMs));
  assert.equal(parseCertificates(preparing.bundle.pem).length, 2);
  assert.equal(
    preparing.leaves[SERVER]?.secretName,
    first.leaves[SERVER]?.secretName,
    "servers stay with the old one",
  );
  assert.deepEqual(signers(preparing, CLIENT), [true, false], "clients get the new one");
  assert.ok(
    w.store.secrets.has(first.leaves[CLIENT]?.secretName ?? ""),
    "the former client secret outlives one run",
  );
  for (const next of ["WaitingForWorkersRollout", "Prepared"]) {
    const same = await reconcile(w, phase(next, startedMs));
    assert.deepEqual([same.bundle, same.leaves], [preparing.bundle, preparing.leaves]);
  }
  assert.ok(!w.store.secrets.has(first.leaves[CLIENT]?.secretName ?? ""));
  const completing = await reconcile(w, phase("Completing", startedMs));
  assert.equal(parseCertificates(completing.bundle.pem).length, 1);
  assert.deepEqual(signers(completing, SERVER), [true]);
  assert.equal(completing.leaves[CLIENT]?.secretName, preparing.leaves[CLIENT]?.secretName);
  const completed = await reconcile(w, phase("Completed", startedMs));
  assert.deepEqual([completed.bundle, completed.leaves], [completing.bundle, completing.leaves]);
  assert.equal(w.store.secrets.size, 4);
});

test("a dropped authority never comes back, in whatever phase", async () => {
  const w = world();
  await reconcile(w);
  w.nowMs += DAY_MS;
  const startedMs = w.nowMs;
  await reconcile(w, phase("Preparing", startedMs));
  await reconcile(w, phase("Completing", startedMs));
  const completed = await reconcile(w, phase("Completed", startedMs));
  assert.equal(parseCertificates(completed.bundle.pem).length, 1);
  const persisted = [...w.store.secrets.values()].filter((secret) => secret.labels[LABEL.persist] === "true");
  assert.equal(persisted.length, 1, "and is not carried to another seed");
});

test("an authority made only in the phase Completing keeps the old one for that run", async () => {
  const w = world();
  await reconcile(w);
  w.nowMs += DAY_MS;
  const late = await reconcile(w, phase("Completing", w.nowMs));
  assert.equal(parseCertificates(late.bundle.pem).length, 2);
});

test("leaves are renewed at 80 % of their life, by the same authority and under a new name", async () => {
  const w = world();
  const first = await reconcile(w);
  w.nowMs += 71 * DAY_MS;
  assert.deepEqual((await reconcile(w)).leaves, first.leaves);
  w.nowMs += 2 * DAY_MS;
  const renewed = await reconcile(w);
  assert.notEqual(renewed.leaves[SERVER]?.secretName, first.leaves[SERVER]?.secretName);
  assert.equal(renewed.leaves[CLIENT]?.secretName, first.leaves[CLIENT]?.secretName);
  assert.equal(renewed.bundle.secretName, first.bundle.secretName);
  assert.deepEqual((await reconcile(w)).leaves, renewed.leaves);
});

test("another host name gives the server another certificate", async () => {
  const w = world();
  const first = await reconcile(w);
  const moved = {
    ...config,
    leaves: [{ ...config.leaves[0]!, dnsNames: ["spegel-foo--bar.other.org"] }, config.leaves[1]!],
  };
  const second = await ensureCredentials(w.deps, moved, noRotation, cancel);
  assert.notEqual(second.leaves[SERVER]?.secretName, first.leaves[SERVER]?.secretName);
  assert.match(
    parseCertificate(second.leaves[SERVER]?.certificatePem ?? "").subjectAltName ?? "",
    /other\.org/,
  );
  assert.equal(second.leaves[CLIENT]?.secretName, first.leaves[CLIENT]?.secretName);
});

test("an authority without any rotation makes way in time, and both are trusted meanwhile", async () => {
  const w = world();
  await reconcile(w);
  w.nowMs += 0.81 * 3650 * DAY_MS;
  const renewed = await reconcile(w);
  assert.equal(parseCertificates(renewed.bundle.pem).length, 2);
  assert.deepEqual(signers(renewed, SERVER), [false, true]);
  w.nowMs += DAY_MS;
  assert.deepEqual((await reconcile(w)).bundle, renewed.bundle);
  w.nowMs += 0.15 * 3650 * DAY_MS;
  const ended = await reconcile(w);
  assert.equal(parseCertificates(ended.bundle.pem).length, 1);
  assert.deepEqual(signers(ended, SERVER), [true]);
});

test("the automatic rotation of a webhook's authority ignores the old one after its time", async () => {
  const w = world();
  const webhook: CredentialsConfig = {
    identity: "gardener-extension-registry-spegel-webhook",
    authority: { name: "ca-registry-spegel-webhook", validityMs: 30 * DAY_MS, persist: false },
    leaves: [
      {
        name: "webhook-server",
        usage: "server",
        commonName: "x",
        dnsNames: ["x.ns.svc"],
        signedBy: "current",
        validityMs: 30 * DAY_MS,
      },
    ],
  };
  const rotation: Rotation = { kind: "automatic", ignoreOldAfterMs: DAY_MS };
  const run = () => ensureCredentials(w.deps, webhook, rotation, cancel);
  const first = await run();
  w.nowMs += 19 * DAY_MS;
  assert.deepEqual((await run()).leaves, first.leaves);
  w.nowMs += DAY_MS;
  const rotated = await run();
  assert.equal(parseCertificates(rotated.bundle.pem).length, 2);
  assert.deepEqual(signers(rotated, "webhook-server"), [true, false]);
  w.nowMs += DAY_MS + 2000;
  const settled = await run();
  assert.deepEqual(signers(settled, "webhook-server"), [true]);
  assert.deepEqual(settled.leaves, rotated.leaves);
});

test("damaged, foreign and expired secrets are replaced, not used", async () => {
  const w = world();
  const first = await reconcile(w);
  const serverName = first.leaves[SERVER]?.secretName ?? "";
  const server = w.store.secrets.get(serverName) as StoredSecret;
  const other = await reconcile(world(1));
  for (const data of [
    {},
    { "tls.crt": "garbage", "tls.key": "garbage" },
    { ...server.data, "tls.key": keys[3]?.privateKeyPem ?? "" },
    {
      "tls.crt": other.leaves[SERVER]?.certificatePem ?? "",
      "tls.key": other.leaves[SERVER]?.privateKeyPem ?? "",
    },
  ]) {
    w.store.secrets.set(serverName, { ...server, data });
    const repaired = await ensureCredentials(w.deps, config, noRotation, cancel);
    const name = repaired.leaves[SERVER]?.secretName ?? "";
    assert.notEqual(name, serverName);
    assert.ok(trusts(repaired.bundle.pem, repaired.leaves[SERVER]?.certificatePem, w.nowMs));
    w.store.secrets.delete(name);
  }
  const authorityName = [...first.used].find((name) => /^ca-.*registry-spegel-[0-9a-f]{8}$/.test(name)) ?? "";
  const authority = w.store.secrets.get(authorityName) as StoredSecret;
  w.store.secrets.set(authorityName, { ...authority, data: { "ca.crt": "cut" } });
  const rebuilt = await reconcile(w);
  assert.ok(trusts(rebuilt.bundle.pem, rebuilt.leaves[SERVER]?.certificatePem, w.nowMs));
  assert.deepEqual((await reconcile(w)).bundle, rebuilt.bundle, "and the repair is stable");
});

test("an authority whose secret was deleted takes its leaves with it", async () => {
  const w = world();
  const first = await reconcile(w);
  for (const name of first.used) if (name.startsWith("ca-")) w.store.secrets.delete(name);
  const second = await reconcile(w);
  assert.ok(trusts(second.bundle.pem, second.leaves[SERVER]?.certificatePem, w.nowMs));
  assert.notEqual(second.leaves[CLIENT]?.secretName, first.leaves[CLIENT]?.secretName);
});

test("two replicas that start together end with the same certificates", async () => {
  const w = world();
  const [a, b] = await Promise.all([1, 2].map(() => ensureCredentials(w.deps, config, noRotation, cancel)));
  assert.deepEqual(a?.leaves, b?.leaves);
  assert.deepEqual(a?.bundle, b?.bundle);
  assert.equal(w.store.secrets.size, 4);
});

test("a name that a foreign secret has taken is an error, not a loop", async () => {
  const w = world();
  w.store.create = async () => "exists";
  await assert.rejects(ensureCredentials(w.deps, config, noRotation, cancel), {
    code: "CREDENTIALS_SECRET_TAKEN",
    message: /^Secret ca-.* exists without the labels of .*: delete it/,
  });
});

test("removal deletes all secrets of the identity", async () => {
  const w = world();
  await reconcile(w);
  await removeCredentials(w.store, cancel);
  assert.equal(w.store.secrets.size, 0);
});

/** What runs somewhere: a bootstrapper, or what a node was told. */
interface Deployed {
  readonly bundlePem: string;
  readonly certificatePem: string;
  readonly secretNames: readonly string[];
}

const serverOf = (credentials: Credentials): Deployed => deployed(credentials, SERVER);
const nodeOf = (credentials: Credentials): Deployed => deployed(credentials, CLIENT);
function deployed(credentials: Credentials, leaf: string): Deployed {
  const { certificatePem = "", secretName = "" } = credentials.leaves[leaf] ?? {};
  return {
    bundlePem: credentials.bundle.pem,
    certificatePem,
    secretNames: [secretName, credentials.bundle.secretName],
  };
}

type Step =
  | "wait"
  | "flow"
  | "failBeforeRollout"
  | "failAfterRollout"
  | "failOnNodes"
  | "startRotation"
  | "nextPhase";

test("no server and node that can meet ever distrust each other, through any sequence of phases and failures", async () => {
  const steps = fc.array(
    fc.oneof(
      { weight: 3, arbitrary: fc.constant<Step>("flow") },
      { weight: 4, arbitrary: fc.constantFrom<Step>("startRotation", "nextPhase", "nextPhase") },
      {
        weight: 4,
        arbitrary: fc.constantFrom<Step>("wait", "failBeforeRollout", "failAfterRollout", "failOnNodes"),
      },
    ),
    { minLength: 5, maxLength: 30 },
  );
  await fc.assert(fc.asyncProperty(steps, runSteps), { numRuns: 60 });
});

async function runSteps(steps: readonly Step[]): Promise<void> {
  const w = world();
  let rotation: Rotation & { kind: "shoot" } = { kind: "shoot" };
  let servers: Deployed[] = [];
  let nodes: Deployed[] = [];
  /** A phase ends only after a flow that reached every node. */
  let isPhaseDone = false;

  const check = (): void => {
    for (const server of servers) {
      for (const node of nodes) {
        assert.ok(trusts(node.bundlePem, server.certificatePem, w.nowMs), "a node distrusts the server");
        assert.ok(trusts(server.bundlePem, node.certificatePem, w.nowMs), "the server distrusts a node");
      }
    }
    const latest = nodes.at(-1)?.secretNames ?? [];
    for (const name of [...(servers.at(-1)?.secretNames ?? []), ...latest]) {
      assert.ok(w.store.secrets.has(name), `secret ${name} is still referred to`);
    }
  };

  async function flow(end: Step): Promise<void> {
    const credentials = await ensureCredentials(w.deps, config, rotation, cancel);
    check();
    if (end === "failBeforeRollout") return;
    servers = [...servers, serverOf(credentials)];
    check(); // pods of both generations serve
    if (end === "failAfterRollout") return;
    servers = [serverOf(credentials)];
    check();
    await pruneCredentials(w.deps, credentials, cancel);
    check();
    nodes = [...nodes, nodeOf(credentials)];
    check(); // some nodes have applied the new configuration, others not yet
    if (end === "failOnNodes") return;
    nodes = [nodeOf(credentials)];
    check();
    isPhaseDone = true;
  }

  await flow("flow");
  for (const step of steps) {
    w.nowMs += DAY_MS;
    if (step === "wait") w.nowMs += 2 * DAY_MS;
    else if (step === "startRotation") {
      if (rotation.phase === undefined || rotation.phase === "Completed") {
        rotation = { kind: "shoot", phase: "Preparing", lastInitiationTimeMs: w.nowMs };
        isPhaseDone = false;
      }
    } else if (step === "nextPhase") {
      const order = ["Preparing", "WaitingForWorkersRollout", "Prepared", "Completing", "Completed"];
      const next: string | undefined = order[order.indexOf(rotation.phase ?? "") + 1];
      if (rotation.phase === undefined || next === undefined) continue;
      if (!isPhaseDone) await flow("flow");
      rotation = { ...rotation, phase: next };
      isPhaseDone = next === "WaitingForWorkersRollout" || next === "Prepared";
    } else await flow(step);
    check();
  }
}
