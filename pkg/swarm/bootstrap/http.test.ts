// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { TlsOptions } from "node:tls";
import { hasCode } from "#errors";
import { createLogger, silentLogger } from "#log";
import { type CertifiedKey, createKeyPair, issueAuthority, issueLeaf } from "#pki";
import { bootstrapPeerUrl, createHttpBootstrap } from "./http.ts";
import { serveBootstrapId } from "./serve-id.ts";
import type { BootstrapPeer } from "./source.ts";

const ID = "12D3KooWGRUfp5aa7gKGYFf4dXLnNFDRSr6NqxdKPXj9AnRnLGqZ";
const signal = AbortSignal.timeout(60_000);

interface Rig extends AsyncDisposable {
  readonly port: number;
}

async function listen(server: Server): Promise<Rig> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

const serving = (listener: RequestListener): Promise<Rig> => listen(createServer(listener));

function get(
  url: string,
  settings: {
    certificateDirectory?: string;
    warnings?: string[];
    signal?: AbortSignal;
    proxyEnvironment?: Record<string, string>;
  } = {},
): Promise<BootstrapPeer[]> {
  const logger = createLogger({
    level: "WARN",
    sink: { write: (line) => void settings.warnings?.push(line) },
  });
  const source = createHttpBootstrap(
    { logger },
    {
      url,
      certificateDirectory: settings.certificateDirectory,
      defaultPort: 5001,
      ...(settings.proxyEnvironment && { proxyEnvironment: settings.proxyEnvironment }),
    },
  );
  return source.peers({ signal: settings.signal ?? signal });
}

async function getBody(body: string, warnings: string[] = []): Promise<BootstrapPeer[]> {
  await using rig = await serving((_, response) => void response.end(body));
  return await get(`http://127.0.0.1:${rig.port}/bootstrap-nodes`, { warnings });
}

const isFailed = (error: unknown): boolean => hasCode(error, "SWARM_BOOTSTRAP_FAILED");

describe("HTTP bootstrap", () => {
  it("reads the list of a bootstrapper, with and without ids and ports", async () => {
    const body = JSON.stringify([
      { ID: "", Addrs: ["/ip4/10.0.0.1"] },
      { ID, Addrs: ["/ip4/10.0.0.2/tcp/6000", "/ip6/2001:db8::2"], more: 1 },
      { Addrs: ["/ip4/10.0.0.3"] },
    ]);
    assert.deepEqual(await getBody(body), [
      { id: undefined, addresses: ["/ip4/10.0.0.1/tcp/5001"] },
      { id: ID, addresses: ["/ip4/10.0.0.2/tcp/6000", "/ip6/2001:db8::2/tcp/5001"] },
      { id: undefined, addresses: ["/ip4/10.0.0.3/tcp/5001"] },
    ]);
  });

  it("reads the single object of Spegel 0.7", async () => {
    assert.deepEqual(await getBody(JSON.stringify({ ID, Addrs: ["/ip4/10.0.0.1/tcp/5001"] })), [
      { id: ID, addresses: ["/ip4/10.0.0.1/tcp/5001"] },
    ]);
    assert.equal(bootstrapPeerUrl("http://10.0.0.1:5002/"), "http://10.0.0.1:5002/id");
  });

  it("takes an empty list as nobody", async () => {
    assert.deepEqual(await getBody("[]"), []);
  });

  it("passes over entries that it cannot understand, with one warning for all", async () => {
    const warnings: string[] = [];
    const wrong = [
      null,
      1,
      "x",
      [],
      {},
      { ID: 5, Addrs: ["/ip4/10.0.0.1"] },
      { Addrs: "x" },
      { Addrs: [1] },
      { Addrs: [] },
      { ID: "nonsense", Addrs: ["/ip4/10.0.0.1"] },
      { Addrs: ["nonsense"] },
    ];
    assert.deepEqual(await getBody(JSON.stringify([...wrong, { Addrs: ["/ip4/10.0.0.9"] }]), warnings), [
      { id: undefined, addresses: ["/ip4/10.0.0.9/tcp/5001"] },
    ]);
    assert.equal(warnings.length, 1);
    assert.equal(JSON.parse(warnings[0] ?? "").count, wrong.length);
  });

  it("takes ten entries of a long list", async () => {
    const body = JSON.stringify(
      Array.from({ length: 300 }, (_, i) => ({ Addrs: [`/ip4/10.0.1.${i % 256}`] })),
    );
    assert.equal((await getBody(body)).length, 10);
  });

  it("fails for an answer that is no list", async () => {
    for (const body of ["", "<html>", "5", "null", '"x"', "[", "\u0000"])
      await assert.rejects(getBody(body), isFailed, body);
  });

  it("fails for any status but 200, and follows nobody elsewhere", async () => {
    for (const status of [204, 301, 401, 404, 500]) {
      await using rig = await serving(
        (_, response) => void response.writeHead(status, { location: "http://127.0.0.1:1/" }).end("[]"),
      );
      await assert.rejects(get(`http://127.0.0.1:${rig.port}/`), isFailed, String(status));
    }
  });

  it("stops reading an answer over 1 MiB", async () => {
    let sentBytes = 0;
    await using rig = await serving((_, response) => {
      const more = (): void => {
        while (!response.destroyed && response.write("x".repeat(65536))) sentBytes += 65536;
      };
      response.on("drain", more);
      more();
    });
    await assert.rejects(get(`http://127.0.0.1:${rig.port}/`), isFailed);
    assert.ok(sentBytes < 64 * 1024 * 1024);
  });

  it("gives up with its signal: a server that accepts and says nothing, and one that never ends", async () => {
    await using slow = await serving((_, response) => void response.write("["));
    const silent = createTcpServer(() => {});
    silent.listen(0, "127.0.0.1");
    await once(silent, "listening");
    try {
      for (const port of [slow.port, (silent.address() as AddressInfo).port]) {
        await assert.rejects(get(`http://127.0.0.1:${port}/`, { signal: AbortSignal.timeout(50) }), isFailed);
      }
    } finally {
      silent.close();
    }
  });

  it("fails when the connection breaks in the middle, is refused, or speaks no HTTP", async () => {
    await using cut = await serving((_, response) => {
      response.writeHead(200, { "content-length": 100 });
      response.write("[");
      setImmediate(() => response.destroy());
    });
    await assert.rejects(get(`http://127.0.0.1:${cut.port}/`), isFailed);
    const garbage = createTcpServer(
      (socket) =>
        void socket
          .on("error", () => {})
          .resume()
          .end("garbage\r\n\r\n"),
    );
    garbage.listen(0, "127.0.0.1");
    await once(garbage, "listening");
    const { port } = garbage.address() as AddressInfo;
    await assert.rejects(get(`http://127.0.0.1:${port}/`), isFailed);
    garbage.close();
    await once(garbage, "close");
    await assert.rejects(get(`http://127.0.0.1:${port}/`), isFailed);
  });

  it("refuses what is no http or https URL at once", () => {
    for (const url of ["", "bootstrap", "ftp://x/", "file:///etc/passwd"]) {
      assert.throws(
        () =>
          createHttpBootstrap(
            { logger: silentLogger },
            { url, certificateDirectory: undefined, defaultPort: 1 },
          ),
        (error) => hasCode(error, "SWARM_ADDRESS_INVALID"),
        url,
      );
    }
  });
});

describe("HTTP bootstrap with certificates", () => {
  let pki: string;
  before(async () => {
    pki = await mkdtemp(join(tmpdir(), "bootstrap-pki-"));
    const validity = { validityMs: 3_600_000, nowMs: Date.now() };
    const key = await createKeyPair({ bits: 2048 });
    const [ca, otherCa] = await Promise.all(
      ["ca", "other-ca"].map((commonName) => issueAuthority({ commonName, ...validity })),
    );
    assert.ok(ca && otherCa);
    const keep = async (name: string, pair: CertifiedKey): Promise<void> => {
      await writeFile(join(pki, `${name}.crt`), pair.certificatePem);
      await writeFile(join(pki, `${name}.key`), pair.privateKeyPem);
    };
    await keep("ca", ca);
    await keep("other-ca", otherCa);
    await keep(
      "server",
      await issueLeaf(ca, {
        usage: "server",
        commonName: "server",
        ipAddresses: ["127.0.0.1"],
        ...validity,
        key,
      }),
    );
    await keep("client", await issueLeaf(ca, { usage: "client", commonName: "client", ...validity, key }));
    await keep(
      "stranger",
      await issueLeaf(otherCa, {
        usage: "client",
        commonName: "stranger",
        ...validity,
        key: await createKeyPair({ bits: 2048 }),
      }),
    );
  });
  after(() => rm(pki, { recursive: true }));

  async function directory(files: Readonly<Record<string, string>>): Promise<string> {
    const path = await mkdtemp(join(pki, "certs-"));
    for (const [name, from] of Object.entries(files)) await copyFile(join(pki, from), join(path, name));
    return path;
  }

  async function tlsServer(options: TlsOptions = {}): Promise<Rig> {
    const read = (name: string): Buffer => readFileSync(join(pki, name));
    const server = createTlsServer(
      {
        key: read("server.key"),
        cert: read("server.crt"),
        ca: read("ca.crt"),
        requestCert: true,
        rejectUnauthorized: true,
        ...options,
      },
      (_, response) => void response.end('[{"Addrs":["/ip4/10.0.0.1"]}]'),
    );
    return listen(server);
  }

  const MEMBER = { "ca.crt": "ca.crt", "tls.crt": "client.crt", "tls.key": "client.key" };

  it("shows its certificate to a server that wants one, and trusts that server's authority alone", async () => {
    await using rig = await tlsServer();
    const url = `https://127.0.0.1:${rig.port}/`;
    assert.equal((await get(url, { certificateDirectory: await directory(MEMBER) })).length, 1);
    for (const files of [
      { "ca.crt": "ca.crt" },
      { ...MEMBER, "tls.crt": "stranger.crt", "tls.key": "stranger.key" },
      { ...MEMBER, "ca.crt": "other-ca.crt" },
    ]) {
      await assert.rejects(get(url, { certificateDirectory: await directory(files) }), isFailed);
    }
    await assert.rejects(get(url), isFailed, "the system's authorities do not know it");
  });

  it("goes through the proxy of the environment, which passes the connection on as it is", async () => {
    await using rig = await tlsServer();
    const url = `https://127.0.0.1:${rig.port}/`;
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`);
      response.end('[{"Addrs":["/ip4/10.0.0.2"]}]');
    });
    const tunnels = new Set<Socket>();
    server.on("connect", ({ url: target }, client: Socket) => {
      asked.push(`CONNECT ${target}`);
      const upstream = connect(rig.port, "127.0.0.1", () => {
        client.write("HTTP/1.1 200 Connection established\r\n\r\n");
        upstream.pipe(client).pipe(upstream);
      });
      for (const socket of [client, upstream]) {
        tunnels.add(socket);
        socket.on("error", () => {});
      }
    });
    await using proxy = await listen(server);
    const proxyEnvironment = { HTTPS_PROXY: `http://127.0.0.1:${proxy.port}` };
    const certificateDirectory = await directory(MEMBER);
    assert.equal((await get(url, { certificateDirectory, proxyEnvironment })).length, 1);
    assert.deepEqual(asked, [`CONNECT 127.0.0.1:${rig.port}`]);
    const exempt = { ...proxyEnvironment, NO_PROXY: "127.0.0.1" };
    assert.equal((await get(url, { certificateDirectory, proxyEnvironment: exempt })).length, 1);
    const plain = { HTTP_PROXY: `http://127.0.0.1:${proxy.port}` };
    assert.equal((await get("http://bootstrap.example/nodes", { proxyEnvironment: plain })).length, 1);
    assert.deepEqual(asked.slice(1), ["GET http://bootstrap.example/nodes"], "none for the exempt host");
    await assert.rejects(
      get(url, { certificateDirectory: await directory({ "ca.crt": "ca.crt" }), proxyEnvironment }),
      isFailed,
      "the server still wants a certificate",
    );
    for (const socket of tunnels) socket.destroy();
  });

  it("fails when the proxy refuses or is not there", async () => {
    await using rig = await tlsServer();
    const server = createServer();
    server.on("connect", (_, client: Socket) => client.end("HTTP/1.1 403 Forbidden\r\n\r\n"));
    await using proxy = await listen(server);
    const certificateDirectory = await directory(MEMBER);
    for (const port of [proxy.port, 1]) {
      const proxyEnvironment = { HTTPS_PROXY: `http://127.0.0.1:${port}` };
      const asking = get(`https://127.0.0.1:${rig.port}/`, { certificateDirectory, proxyEnvironment });
      await assert.rejects(asking, isFailed);
    }
  });

  it("needs no certificate of its own where none is wanted", async () => {
    await using rig = await tlsServer({ requestCert: false });
    assert.equal(
      (
        await get(`https://127.0.0.1:${rig.port}/`, {
          certificateDirectory: await directory({ "ca.crt": "ca.crt" }),
        })
      ).length,
      1,
    );
  });

  it("refuses TLS below 1.2", async () => {
    await using rig = await tlsServer({
      minVersion: "TLSv1",
      maxVersion: "TLSv1.1",
      ciphers: "DEFAULT@SECLEVEL=0",
    });
    await assert.rejects(
      get(`https://127.0.0.1:${rig.port}/`, { certificateDirectory: await directory(MEMBER) }),
      isFailed,
    );
  });

  it("uses renewed certificates from the next request on", async () => {
    await using rig = await tlsServer();
    const path = await directory({ ...MEMBER, "tls.crt": "stranger.crt", "tls.key": "stranger.key" });
    const source = createHttpBootstrap(
      { logger: silentLogger },
      { url: `https://127.0.0.1:${rig.port}/`, certificateDirectory: path, defaultPort: 5001 },
    );
    await assert.rejects(source.peers({ signal }), isFailed);
    await copyFile(join(pki, "client.crt"), join(path, "tls.crt"));
    await copyFile(join(pki, "client.key"), join(path, "tls.key"));
    assert.equal((await source.peers({ signal })).length, 1);
  });

  it("fails for half a pair, a key of another certificate and an authority that is none", async () => {
    await using rig = await tlsServer();
    const url = `https://127.0.0.1:${rig.port}/`;
    const broken = await directory(MEMBER);
    await writeFile(join(broken, "ca.crt"), "nonsense");
    const mixed = await directory({ ...MEMBER, "tls.key": "stranger.key" });
    const half = await directory({ "ca.crt": "ca.crt", "tls.crt": "client.crt" });
    for (const certificateDirectory of [broken, mixed, half])
      await assert.rejects(get(url, { certificateDirectory }), isFailed, certificateDirectory);
  });

  it("takes empty files and an absent folder as no certificates", async () => {
    const empty = await directory({});
    for (const name of ["ca.crt", "tls.crt", "tls.key"]) await writeFile(join(empty, name), "");
    await using rig = await tlsServer({ requestCert: false });
    for (const certificateDirectory of [empty, join(pki, "absent")]) {
      await assert.rejects(
        get(`https://127.0.0.1:${rig.port}/`, { certificateDirectory }),
        (error: Error) =>
          isFailed(error) && /self-signed|unable to/.test(String((error.cause as Error).message)),
      );
    }
  });
});

describe("the id server", () => {
  it("is understood by HTTP bootstrap, whatever the method, at /id alone", async () => {
    await using server = await serveBootstrapId(
      { peerId: ID, addresses: () => ["/ip4/10.0.0.1/tcp/5001"] },
      { host: "127.0.0.1", port: 0 },
    );
    const url = `http://127.0.0.1:${server.port}/id`;
    assert.deepEqual(await get(url), [{ id: ID, addresses: ["/ip4/10.0.0.1/tcp/5001"] }]);
    assert.equal((await fetch(url, { method: "POST", body: "x".repeat(1000) })).status, 200);
    assert.equal((await fetch(`http://127.0.0.1:${server.port}/`)).status, 404);
  });

  it("says when it cannot listen", async () => {
    await using server = await serveBootstrapId(
      { peerId: ID, addresses: () => [] },
      { host: "127.0.0.1", port: 0 },
    );
    await assert.rejects(
      serveBootstrapId({ peerId: ID, addresses: () => [] }, { host: "127.0.0.1", port: server.port }),
      (error) => hasCode(error, "SWARM_LISTEN_FAILED"),
    );
  });
});
