// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import type { OperatingSystemConfig } from "#api/gardener";
import { CERTIFICATE_DIRECTORY } from "#nodelayout";
import { createKeyPair, issueAuthority, issueLeaf } from "#pki";
import { type Landscape, startLandscape } from "./landscape.ts";
import { askForNodes, type NodeCertificates, pollFromNodes } from "./poll-clients.ts";
import { type Installation, installExtension } from "./run-extension.ts";
import { startWorkload, type Workload } from "./stand-ins/workload.ts";

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
    for (const phase of ["Preparing", "Preparing", "Prepared", "Completing", "Completed", undefined]) {
      const before = nodes.answeredCount;
      const next = await certificatesOf(namespace, await reconcile(namespace, workload, phase));
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

  it("has chains that OpenSSL accepts, for the one purpose of each", async () => {
    const { gardenlet, directory } = landscape;
    const namespace = await gardenlet.addShoot();
    await gardenlet.enable(namespace);
    await gardenlet.awaitReady(namespace);
    await gardenlet.syncCluster(namespace, ({ spec }) => {
      const rotation = { phase: "Preparing", lastInitiationTime: "2026-08-21T10:00:00Z" };
      spec.shoot.status["credentials"] = { rotation: { certificateAuthorities: rotation } };
    });
    await gardenlet.deploy(namespace);
    const extension = await gardenlet.awaitReady(namespace);
    const status = extension.status?.providerStatus as Record<string, string> | undefined;
    const { caBundleSecretName, clientSecretName } = status ?? {};
    const bundle = join(directory, "bundle.pem");
    const data = await gardenlet.secretData(namespace, caBundleSecretName ?? "");
    await writeFile(bundle, data?.["bundle.crt"] ?? "");
    const secrets = await landscape.seed.admin.list("v1", "Secret", namespace);
    const serverSecret = secrets.find(
      ({ metadata }) => metadata.labels?.["name"] === "registry-spegel-bootstrapper-server",
    );
    const leaves = [
      {
        name: serverSecret?.metadata.name ?? "",
        purpose: "sslserver",
        other: "sslclient",
        host: await hostOf(namespace),
      },
      { name: clientSecretName ?? "", purpose: "sslclient", other: "sslserver", host: undefined },
    ];
    const run = promisify(execFile);
    for (const { name, purpose, other, host } of leaves) {
      const leaf = join(directory, `${name}.pem`);
      await writeFile(leaf, (await gardenlet.secretData(namespace, name))?.["tls.crt"] ?? "");
      const verify = (...args: string[]) =>
        run("openssl", ["verify", "-x509_strict", "-CAfile", bundle, ...args, leaf]);
      await verify("-purpose", purpose, ...(host === undefined ? [] : ["-verify_hostname", host]));
      await assert.rejects(verify("-purpose", other), `${name} as ${other}`);
    }
    await gardenlet.deleteExtension(namespace);
  });
});
