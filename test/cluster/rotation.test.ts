// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { OperatingSystemConfig } from "#api/gardener";
import { BOOTSTRAPPER_NAME, EXTENSION_NAME } from "#extension";
import { valueAt } from "#kit/api-server";
import { CERTIFICATE_DIRECTORY } from "#nodelayout";
import { createKeyPair, issueAuthority, issueLeaf } from "#pki";
import { type Landscape, startLandscape } from "./landscape.ts";
import { askForNodes, type NodeCertificates, pollFromNodes } from "./poll-clients.ts";
import { type Installation, installExtension } from "./run-extension.ts";
import { startWorkload, type Workload } from "./stand-ins/workload.ts";
import { type Chain, verifyChains } from "./verify-chains.ts";

interface Side {
  /** Authorities that it trusts. */
  readonly ca: string;
  readonly cert: string;
}

const CLIENT_COUNT = 50;
const HOUR_MS = 3_600_000;

describe("a Shoot whose authorities are rotated", { timeout: 250_000 }, () => {
  let landscape: Landscape;
  let installation: Installation;
  const parts = new AsyncDisposableStack();

  before(async () => {
    landscape = parts.use(await startLandscape());
    installation = parts.use(await installExtension(landscape));
    parts.use(await installation.open());
    await installation.service.ready(1, landscape);
  });
  after(() => parts.disposeAsync());

  /** The certificate files of a node, by its configuration and the Secrets it refers to. */
  async function certificatesOf(namespace: string, osc: OperatingSystemConfig): Promise<NodeCertificates> {
    const read = async (file: string): Promise<string> => {
      const entry = osc.spec.files?.find(({ path }) => path === `${CERTIFICATE_DIRECTORY}/${file}`);
      const { name = "", dataKey = "" } = entry?.content.secretRef ?? {};
      const data = await landscape.gardenlet.secretData(namespace, name);
      assert.ok(data?.[dataKey], `${file}: Secret ${name} has ${dataKey}`);
      return String(data[dataKey]);
    };
    return { ca: await read("ca.crt"), cert: await read("tls.crt"), key: await read("tls.key") };
  }

  async function hostOf(namespace: string): Promise<string> {
    const extension = await landscape.gardenlet.extension(namespace);
    const status = extension?.status?.providerStatus as { readonly bootstrapURL: string } | undefined;
    assert.ok(status);
    return new URL(status.bootstrapURL).hostname;
  }

  /** What gardenlet does in one Shoot reconciliation: Extension, node configuration, nodes. */
  async function reconcile(
    namespace: string,
    workload: Workload,
    phase?: string,
  ): Promise<OperatingSystemConfig> {
    const { gardenlet } = landscape;
    await gardenlet.syncCluster(namespace, ({ spec }) => {
      if (phase === undefined) return;
      const lastInitiationTime = "2026-08-21T10:00:00Z";
      spec.shoot.status["credentials"] = {
        rotation: { certificateAuthorities: { phase, lastInitiationTime } },
      };
    });
    await gardenlet.deploy(namespace);
    await gardenlet.awaitReady(namespace);
    await workload.settled();
    return await gardenlet.writeOSC(namespace);
  }

  async function begin(): Promise<{
    namespace: string;
    workload: Workload;
    certificates: NodeCertificates;
    host: string;
  }> {
    const { gardenlet } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    const workload = parts.use(await startWorkload(landscape, namespace));
    await workload.settled();
    const certificates = await certificatesOf(namespace, await gardenlet.writeOSC(namespace));
    return { namespace, workload, certificates, host: await hostOf(namespace) };
  }

  /** The certificate that the pods of the bootstrapper show, by their template, and the authorities they trust. */
  async function serverOf(namespace: string): Promise<Side> {
    const deployment = await landscape.seed.admin.find("apps/v1", "Deployment", BOOTSTRAPPER_NAME, namespace);
    const sources = valueAt<{ secret: { name: string; items: { key: string; path: string }[] } }[]>(
      deployment,
      "spec.template.spec.volumes.0.projected.sources",
    );
    const files: Record<string, string> = {};
    for (const { secret } of sources) {
      const data = await landscape.gardenlet.secretData(namespace, secret.name);
      for (const { key, path } of secret.items) files[path] = String(data?.[key]);
    }
    return { ca: files["ca.crt"] ?? "", cert: files["tls.crt"] ?? "" };
  }

  /** What both ends verify when a node meets the bootstrapper. */
  function chainsOf(what: string, node: Side, server: Side, host: string): [client: Chain, server: Chain] {
    return [
      { what: `${what}: client`, authorities: server.ca, leaf: node.cert, usage: "client" },
      { what: `${what}: server`, authorities: node.ca, leaf: server.cert, usage: "server", host },
    ];
  }

  /** What the API server verifies when it calls the webhook. */
  async function webhookChain(): Promise<Chain> {
    const { admin } = landscape.seed;
    const kind = ["admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"] as const;
    const bundle = valueAt<string>(
      await admin.find(...kind, EXTENSION_NAME),
      "webhooks.0.clientConfig.caBundle",
    );
    const [secret] = (await admin.list("v1", "Secret", installation.namespace)).filter(
      ({ metadata }) => metadata.labels?.["name"] === "registry-spegel-webhook-server",
    );
    const leaf = valueAt<Record<string, string>>(secret, "data")["tls.crt"] ?? "";
    const decode = (base64: string): string => Buffer.from(base64, "base64").toString();
    return {
      what: "webhook",
      authorities: decode(bundle),
      leaf: decode(leaf),
      usage: "server",
      host: "127.0.0.1",
    };
  }

  async function foreignChain(): Promise<Chain> {
    const request = { nowMs: Date.now(), validityMs: HOUR_MS, key: await createKeyPair({ bits: 2048 }) };
    const authority = await issueAuthority({ ...request, commonName: "somebody" });
    const leaf = await issueLeaf(authority, { ...request, usage: "client", commonName: "node" });
    const { certificatePem: authorities } = authority;
    return { what: "foreign", authorities, leaf: leaf.certificatePem, usage: "client" };
  }

  async function problemsOf(chains: readonly Chain[]): Promise<string[]> {
    const verdicts = await verifyChains(chains);
    return Object.entries(verdicts).flatMap(([who, problems]) =>
      problems.flatMap((problem, index) =>
        problem === "" ? [] : [`${who}, ${chains[index]?.what}: ${problem}`],
      ),
    );
  }

  it(`answers ${CLIENT_COUNT} nodes all the time, through every phase, without one failed handshake`, async (t) => {
    const { namespace, workload, certificates, host } = await begin();
    await using nodes = pollFromNodes({
      count: CLIENT_COUNT,
      address: workload.address,
      host,
      certificates,
      signal: landscape.signal,
    });
    const seen = new Set([certificates.cert]);
    const chains: Chain[] = [];
    let node = certificates;
    chains.push(...chainsOf("before", node, await serverOf(namespace), host));
    for (const phase of ["Preparing", "Preparing", "Prepared", "Completing", "Completed", undefined]) {
      const before = nodes.answeredCount;
      const next = await certificatesOf(namespace, await reconcile(namespace, workload, phase));
      // The bootstrapper changes before the nodes do.
      const server = await serverOf(namespace);
      chains.push(
        ...chainsOf(`before ${phase}`, node, server, host),
        ...chainsOf(`${phase}`, next, server, host),
      );
      node = next;
      seen.add(next.cert);
      await nodes.replaceCertificates(next);
      // Every node has asked with what it has now.
      while (nodes.answeredCount < before + 2 * CLIENT_COUNT && nodes.failures.length === 0) {
        landscape.signal.throwIfAborted();
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.deepEqual(nodes.failures, [], `phase ${phase}`);
    }
    t.diagnostic(
      `${nodes.answeredCount} requests, ${workload.startedCount} pods, ${seen.size} client certificates`,
    );
    assert.equal(seen.size, 2, "the client certificate is replaced once");
    assert.ok(workload.startedCount >= 3, "the bootstrapper has been rolled out with both bundles");
    await assert.rejects(
      askForNodes({ address: workload.address, host }, certificates),
      "a client of the authority that is gone",
    );
    await t.test("Go's verifier and OpenSSL accept every chain on the way, for its one purpose", async () => {
      chains.push(await webhookChain());
      const others = chains.map(({ usage, ...chain }) => ({
        ...chain,
        usage: usage === "server" ? ("client" as const) : ("server" as const),
      }));
      assert.deepEqual(await problemsOf(chains), [], "accepted");
      const accepted = await verifyChains(others);
      assert.ok(
        accepted.go.every((problem) => /incompatible key usage/.test(problem)),
        `${accepted.go}`,
      );
      assert.ok(
        accepted.openssl.every((problem) =>
          /unsuitable certificate purpose|unsupported certificate purpose/.test(problem),
        ),
        `${accepted.openssl}`,
      );
    });
    await t.test(
      "both refuse who is foreign, expired, named otherwise or of the authority that is gone",
      async () => {
        const [client, server] = chainsOf("now", node, await serverOf(namespace), host);
        const afterwards = Math.floor(Date.now() / 1000) + 2 * 365 * 24 * 3600;
        const foreign = await foreignChain();
        const bad: Chain[] = [
          { ...client, what: "gone", leaf: certificates.cert },
          { ...client, what: "foreign", leaf: foreign.leaf },
          { ...client, what: "foreign authority", authorities: foreign.authorities },
          { ...client, what: "expired client", at: afterwards },
          { ...server, what: "expired server", at: afterwards },
          { ...server, what: "other name", host: "other.example.org" },
          { ...server, what: "no name", host: "127.0.0.1" },
        ];
        const verdicts = await verifyChains(bad);
        for (const problems of Object.values(verdicts)) {
          for (const [index, problem] of problems.entries())
            assert.notEqual(problem, "", `${bad[index]?.what}`);
        }
      },
    );
    await landscape.gardenlet.deleteExtension(namespace);
  });

  it("is closed to everybody without a certificate of its own nodes", async () => {
    const { namespace, workload, certificates, host } = await begin();
    const target = { address: workload.address, host };
    assert.ok(Array.isArray(await askForNodes(target, certificates)));
    const key = await createKeyPair({ bits: 2048 });
    const request = { nowMs: Date.now(), validityMs: HOUR_MS, key };
    const foreignAuthority = await issueAuthority({ ...request, commonName: "somebody" });
    const foreign = await issueLeaf(foreignAuthority, { ...request, usage: "client", commonName: "node" });
    const secrets = await landscape.seed.admin.list("v1", "Secret", namespace);
    const authoritySecret = secrets.find(
      ({ metadata }) => metadata.labels?.["name"] === "ca-extension-registry-spegel",
    );
    const authorityData = await landscape.gardenlet.secretData(
      namespace,
      authoritySecret?.metadata.name ?? "",
    );
    const authority = {
      certificatePem: String(authorityData?.["ca.crt"]),
      privateKeyPem: String(authorityData?.["ca.key"]),
    };
    const expired = await issueLeaf(authority, {
      ...request,
      nowMs: Date.now() - 2 * HOUR_MS,
      usage: "client",
      commonName: "node",
    });
    const server = await issueLeaf(authority, {
      ...request,
      usage: "server",
      commonName: "node",
      dnsNames: ["node"],
    });
    const { ca } = certificates;
    for (const [who, leaf] of Object.entries({ foreign, expired, server })) {
      const shown = { ca, cert: leaf.certificatePem, key: leaf.privateKeyPem };
      await assert.rejects(askForNodes(target, shown), `${who} certificate`);
    }
    await assert.rejects(askForNodes(target, { ca }), "no certificate");
    await landscape.gardenlet.deleteExtension(namespace);
  });
});
