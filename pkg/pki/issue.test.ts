// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, test } from "node:test";
import tls from "node:tls";
import { promisify } from "node:util";
import fc from "fast-check";
import {
  type CertifiedKey,
  createKeyPair,
  isIssuedBy,
  issueAuthority,
  issueLeaf,
  type KeyPair,
  type LeafRequest,
  type PkiErrorCode,
  parseCertificate,
  parseCertificates,
  parseCertifiedKey,
  publicKeyOf,
  renewalTimeMs,
  validityOf,
} from "./index.ts";

const run = promisify(execFile);
const DAY_MS = 24 * 3_600_000;
const nowMs = Date.now();

let caKey: KeyPair;
let leafKey: KeyPair;
let ca: CertifiedKey;
let otherCa: CertifiedKey;

before(async () => {
  [caKey, leafKey] = await Promise.all([createKeyPair({ bits: 2048 }), createKeyPair({ bits: 2048 })]);
  ca = await issueAuthority({ commonName: "ca-test-1a2b3c4d", validityMs: 3650 * DAY_MS, nowMs, key: caKey });
  otherCa = await issueAuthority({
    commonName: "ca-test-other",
    validityMs: 3650 * DAY_MS,
    nowMs,
    key: leafKey,
  });
});

function serverRequest(override: Partial<LeafRequest> = {}): LeafRequest {
  return {
    usage: "server",
    commonName: "registry-spegel-bootstrapper",
    dnsNames: ["spegel-foo--bar.ingress.example.org", "localhost"],
    ipAddresses: ["127.0.0.1", "::1"],
    validityMs: 90 * DAY_MS,
    nowMs,
    key: leafKey,
    ...override,
  };
}

const clientRequest = (): LeafRequest => ({
  usage: "client",
  commonName: "extensions.gardener.cloud:registry-spegel:node",
  validityMs: 365 * DAY_MS,
  nowMs,
  key: leafKey,
});

const code = (expected: PkiErrorCode) => (error: unknown) => {
  assert.equal((error as { code?: string }).code, expected);
  return true;
};

/** What both ends make of a mutual TLS handshake. */
async function handshake(
  server: CertifiedKey,
  client: CertifiedKey,
  trust: { server: string; client: string },
  name: string,
) {
  const listener = tls.createServer({
    cert: server.certificatePem,
    key: server.privateKeyPem,
    ca: trust.server,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: "TLSv1.3",
  });
  const answered = Promise.withResolvers<string>();
  listener.on("secureConnection", (socket) =>
    answered.resolve(socket.getPeerX509Certificate()?.subject ?? ""),
  );
  listener.on("tlsClientError", (error) => answered.reject(error));
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const { port } = listener.address() as { port: number };
  const socket = tls.connect({
    host: "127.0.0.1",
    port,
    servername: name,
    cert: client.certificatePem,
    key: client.privateKeyPem,
    ca: trust.client,
  });
  socket.on("error", (error) => answered.reject(error));
  try {
    return await answered.promise;
  } finally {
    socket.destroy();
    listener.close();
  }
}

test("server and client certificates of one authority complete a mutual TLS 1.3 handshake", async () => {
  const server = await issueLeaf(ca, serverRequest());
  const client = await issueLeaf(ca, clientRequest());
  const subject = await handshake(
    server,
    client,
    { server: ca.certificatePem, client: ca.certificatePem },
    "localhost",
  );
  assert.match(subject, /CN=extensions\.gardener\.cloud:registry-spegel:node/);
});

test("a handshake fails for another authority, another name and the wrong usage", async () => {
  const server = await issueLeaf(ca, serverRequest());
  const client = await issueLeaf(ca, clientRequest());
  const trust = { server: ca.certificatePem, client: ca.certificatePem };
  await assert.rejects(handshake(server, client, { ...trust, client: otherCa.certificatePem }, "localhost"));
  await assert.rejects(handshake(server, client, { ...trust, server: otherCa.certificatePem }, "localhost"));
  await assert.rejects(handshake(server, client, trust, "elsewhere.example.org"), /altnames/);
  await assert.rejects(
    handshake(server, server, trust, "localhost"),
    "a server certificate must not pass as a client's",
  );
  await assert.rejects(handshake(client, client, trust, "localhost"));
});

test("openssl verifies the chain for the purpose it was issued for and for no other", async () => {
  const folder = await mkdtemp(join(tmpdir(), "pki-"));
  try {
    const leaf = await issueLeaf(ca, serverRequest());
    await writeFile(join(folder, "ca.crt"), ca.certificatePem);
    await writeFile(join(folder, "leaf.crt"), leaf.certificatePem);
    const verify = (...more: string[]) =>
      run("openssl", ["verify", "-x509_strict", "-CAfile", "ca.crt", ...more, "leaf.crt"], { cwd: folder });
    assert.match(
      (await verify("-purpose", "sslserver", "-verify_hostname", "localhost")).stdout,
      /leaf\.crt: OK/,
    );
    assert.match((await verify("-purpose", "sslserver", "-verify_ip", "::1")).stdout, /OK/);
    await assert.rejects(verify("-purpose", "sslclient"));
    await assert.rejects(verify("-verify_hostname", "other.example.org"));
    const { stdout } = await run("openssl", ["x509", "-in", "ca.crt", "-noout", "-text"], { cwd: folder });
    assert.match(stdout, /CA:TRUE, pathlen:0/);
    assert.match(stdout, /Certificate Sign, CRL Sign/);
    assert.match(stdout, /sha256WithRSAEncryption/);
    const ids = [...stdout.matchAll(/Key Identifier: ?\n\s+(?:keyid:)?([0-9A-F:]+)/g)].map(
      (match) => match[1],
    );
    assert.equal(ids.length, 2);
    assert.equal(ids[0], ids[1]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("validity beyond 2049 uses the other time form of X.509 and survives a round trip", async () => {
  const late = await issueAuthority({ commonName: "late", validityMs: 30 * 365 * DAY_MS, nowMs, key: caKey });
  const validity = validityOf(parseCertificate(late.certificatePem));
  assert.equal(validity.notAfterMs, Math.floor((nowMs + 30 * 365 * DAY_MS) / 1000) * 1000);
  assert.equal(validity.notBeforeMs, Math.floor((nowMs - 60_000) / 1000) * 1000);
});

test("each certificate has its own positive serial of 16 octets", async () => {
  const serials = new Set<string>();
  for (let count = 0; count < 20; count++) {
    const serial = parseCertificate((await issueLeaf(ca, clientRequest())).certificatePem).serialNumber;
    assert.equal(serial.length, 32);
    assert.match(serial, /^[4-7]/);
    serials.add(serial);
  }
  assert.equal(serials.size, 20);
});

test("impossible requests are refused with the reason", async () => {
  const refused = code("PKI_REQUEST_INVALID");
  await assert.rejects(issueLeaf(ca, serverRequest({ dnsNames: [], ipAddresses: [] })), refused);
  await assert.rejects(issueLeaf(ca, serverRequest({ commonName: "x".repeat(65) })), refused);
  await assert.rejects(issueLeaf(ca, serverRequest({ commonName: "" })), refused);
  await assert.rejects(issueLeaf(ca, serverRequest({ dnsNames: ["a b"] })), refused);
  await assert.rejects(
    issueLeaf(ca, serverRequest({ dnsNames: [`${"x".repeat(64)}.example.org`] })),
    refused,
  );
  await assert.rejects(issueLeaf(ca, serverRequest({ ipAddresses: ["127.0.0.256"] })), refused);
  await assert.rejects(issueLeaf(ca, serverRequest({ validityMs: 0 })), refused);
  await assert.rejects(
    issueLeaf({ ...ca, privateKeyPem: leafKey.privateKeyPem }, serverRequest()),
    code("PKI_KEY_MISMATCH"),
  );
  await assert.rejects(issueLeaf({ ...ca, privateKeyPem: "-" }, serverRequest()), code("PKI_KEY_INVALID"));
});

test("PEM that is absent, cut, foreign or oversized is refused with its position", () => {
  const invalid = code("PKI_CERTIFICATE_INVALID");
  assert.throws(() => parseCertificates(""), invalid);
  assert.throws(() => parseCertificates(caKey.privateKeyPem), invalid);
  assert.throws(() => parseCertificates(ca.certificatePem.slice(0, -40)), invalid);
  assert.throws(() => parseCertificates("x".repeat(1024 * 1024 + 1)), /more than is read/);
  assert.throws(() => parseCertificates(ca.certificatePem.repeat(65)), /65 certificates/);
  const garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  assert.throws(() => parseCertificates(ca.certificatePem + garbage), /certificate 2 of 2/);
  assert.throws(
    () => parseCertifiedKey({ certificatePem: ca.certificatePem, privateKeyPem: leafKey.privateKeyPem }),
    code("PKI_KEY_MISMATCH"),
  );
  assert.throws(
    () => parseCertifiedKey({ certificatePem: ca.certificatePem, privateKeyPem: "secret text" }),
    (error: Error) => !error.message.includes("secret text"),
  );
});

test("a bundle is read in order, and text between its certificates is ignored", () => {
  const bundle = parseCertificates(`# first\n${ca.certificatePem}\n# second\n${otherCa.certificatePem}`);
  assert.deepEqual(
    bundle.map((certificate) => certificate.subject),
    ["CN=ca-test-1a2b3c4d", "CN=ca-test-other"],
  );
});

test("isIssuedBy asks for the right signer and for both to be valid at that time", async () => {
  const leaf = parseCertificate((await issueLeaf(ca, serverRequest())).certificatePem);
  const [authority, other] = [parseCertificate(ca.certificatePem), parseCertificate(otherCa.certificatePem)];
  assert.equal(isIssuedBy(leaf, [other, authority], nowMs), true);
  assert.equal(isIssuedBy(leaf, [other], nowMs), false);
  assert.equal(isIssuedBy(leaf, [], nowMs), false);
  assert.equal(isIssuedBy(leaf, [authority], nowMs + 91 * DAY_MS), false);
  const brief = await issueAuthority({
    commonName: "ca-test-1a2b3c4d",
    validityMs: DAY_MS,
    nowMs,
    key: caKey,
  });
  assert.equal(isIssuedBy(leaf, [parseCertificate(brief.certificatePem)], nowMs + 2 * DAY_MS), false);
});

test("the public half of a key is the one it was made with", () => {
  assert.equal(publicKeyOf(caKey.privateKeyPem), caKey.publicKeyPem);
});

test("renewal is due within the validity, at the share or the margin, whichever comes first", () => {
  const start = Date.UTC(2026, 0, 1);
  const due = (days: number) =>
    (renewalTimeMs({ notBeforeMs: start, notAfterMs: start + days * DAY_MS }) - start) / DAY_MS;
  assert.equal(due(90), 72); // 80 %
  assert.equal(due(30), 20); // ten days before the end
  assert.equal(due(5), 0); // shorter than the margin: at once
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4000 }),
      fc.integer({ min: 0, max: 100 }),
      fc.nat(400),
      (days, afterPercent, beforeDays) => {
        const validity = { notBeforeMs: start, notAfterMs: start + days * DAY_MS };
        const renewal = renewalTimeMs(validity, { afterPercent, beforeEndMs: beforeDays * DAY_MS });
        assert.ok(renewal >= validity.notBeforeMs && renewal <= validity.notAfterMs);
      },
    ),
  );
});
