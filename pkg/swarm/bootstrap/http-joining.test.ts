// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import type { TLSSocket } from "node:tls";
import { silentLogger } from "#log";
import { type CertifiedKey, createKeyPair, issueAuthority, issueLeaf } from "#pki";
import { eventually } from "#routing/testing";
import { openNode } from "../testing/nodes.ts";
import { createHttpBootstrap } from "./http.ts";

/** What a bootstrapper, or something in its place, may answer. */
const WRONG: readonly ((response: ServerResponse) => void)[] = [
  (response) => void response.writeHead(500).end("broken"),
  (response) => void response.writeHead(503, { "retry-after": "3600" }).end(),
  (response) => void response.writeHead(301, { location: "https://127.0.0.1:1/" }).end(),
  (response) => void response.end(""),
  (response) => void response.end("<html>"),
  (response) => void response.end("null"),
  (response) => void response.end('{"ID":5}'),
  (response) => void response.end('[{"Addrs":["/ip4/300.0.0.1"]},{"Addrs":5},7]'),
  (response) => void response.end('[{"Addrs":["/ip4/127.0.0.9/tcp/1"]}]'),
  (response) => void response.end("[".repeat(100_000)),
  (response) => void response.writeHead(200, { "content-length": 100 }).write("["),
  (response) => void response.destroy(),
];

it("a node joins after any number of wrong answers, refused and renewed certificates", async () => {
  await using parts = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "http-joining-"));
  parts.defer(() => rm(directory, { recursive: true }));
  const validity = { validityMs: 3_600_000, nowMs: Date.now() };
  const key = await createKeyPair({ bits: 2048 });
  const [authority, renewed] = (await Promise.all(
    ["old", "new"].map((commonName) => issueAuthority({ commonName, ...validity })),
  )) as [CertifiedKey, CertifiedKey];
  const serverOf = (issuer: CertifiedKey): Promise<CertifiedKey> =>
    issueLeaf(issuer, {
      usage: "server",
      commonName: "server",
      ipAddresses: ["127.0.0.1"],
      ...validity,
      key,
    });
  const clientOf = (issuer: CertifiedKey): Promise<CertifiedKey> =>
    issueLeaf(issuer, { usage: "client", commonName: "client", ...validity, key });
  async function give(pair: CertifiedKey, ca: CertifiedKey): Promise<void> {
    await writeFile(join(directory, "ca.crt"), ca.certificatePem);
    await writeFile(join(directory, "tls.crt"), pair.certificatePem);
    await writeFile(join(directory, "tls.key"), pair.privateKeyPem);
  }

  await using first = await openNode("127.0.0.31:0");
  let answered = 0;
  let refused = 0;
  let isRight = false;
  const own = await serverOf(authority);
  const server = createServer(
    {
      key: own.privateKeyPem,
      cert: own.certificatePem,
      ca: authority.certificatePem,
      requestCert: true,
      rejectUnauthorized: true,
    },
    (_, response) => {
      const wrong = WRONG[answered++ % WRONG.length];
      if (isRight) response.end(JSON.stringify([{ ID: "", Addrs: first.addresses() }]));
      else wrong?.(response);
    },
  );
  server.on("tlsClientError", (_error: Error, _socket: TLSSocket) => void refused++);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  parts.defer(async () => {
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  });

  await give(await clientOf(authority), authority);
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/bootstrap-nodes`;
  await using node = await openNode(
    "127.0.0.32:0",
    createHttpBootstrap({ logger: silentLogger }, { url, certificateDirectory: directory, defaultPort: 1 }),
    { join: { retryInitialMs: 1, retryMaxMs: 5, attemptTimeoutMs: 2_000 } },
  );
  await eventually(
    () => answered,
    (count) => count >= 2 * WRONG.length,
  );
  assert.equal(node.ready(), false);

  // The server moves on to a new authority before the node does.
  const next = await serverOf(renewed);
  server.setSecureContext({
    key: next.privateKeyPem,
    cert: next.certificatePem,
    ca: renewed.certificatePem,
  });
  await eventually(
    () => refused,
    (count) => count >= 3,
  );
  isRight = true; // for those alone who pass the handshake
  assert.equal(node.ready(), false);
  await give(await clientOf(renewed), renewed);
  await eventually(() => node.ready(), Boolean);
  assert.equal(node.peerCount(), 1);
});
