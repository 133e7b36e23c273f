// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { get, Agent as PlainAgent } from "node:http";
import { Agent, type RequestOptions, request } from "node:https";
import { connect as connectTCP } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { connect, type TLSSocket } from "node:tls";
import { fileURLToPath } from "node:url";
import { startApiServer } from "#kit/api-server";
import { createLogger, type Logger, silentLogger } from "#log";
import { type CertifiedKey, createKeyPair, issueAuthority, issueLeaf, type KeyPair } from "#pki";
import { type BootstrapperFlags, readFlags } from "./flags.ts";
import { type Bootstrapper, openBootstrapper } from "./wire.ts";

const HOUR_MS = 3_600_000;
const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));
const NODES = '["10.0.0.1","10.0.0.2"]';

let directory: string;
let key: KeyPair;
let authority: CertifiedKey;
let server: CertifiedKey;
let client: CertifiedKey;

/** A certificate of `signer`; one key pair serves all, as making them is what takes time. */
function leaf(signer: CertifiedKey, usage: "server" | "client", nowMs = Date.now()): Promise<CertifiedKey> {
  const names = usage === "server" ? { dnsNames: ["bootstrapper.example"] } : {};
  return issueLeaf(signer, { usage, commonName: usage, validityMs: HOUR_MS, nowMs, key, ...names });
}

function newAuthority(commonName: string): Promise<CertifiedKey> {
  return issueAuthority({ commonName, validityMs: HOUR_MS, nowMs: Date.now(), key });
}

/** A folder laid out as a projected volume: files behind the link `..data`. */
async function mountSecret(name: string, leafKey: CertifiedKey, authorities: string): Promise<string> {
  const folder = join(directory, name);
  await mkdir(folder);
  await swapSecret(folder, "..1", leafKey, authorities);
  for (const file of ["tls.crt", "tls.key", "ca.crt"]) await symlink(`..data/${file}`, join(folder, file));
  return folder;
}

async function swapSecret(
  folder: string,
  generation: string,
  leafKey: CertifiedKey,
  authorities: string,
): Promise<void> {
  await mkdir(join(folder, generation));
  await writeFile(join(folder, generation, "tls.crt"), leafKey.certificatePem);
  await writeFile(join(folder, generation, "tls.key"), leafKey.privateKeyPem);
  await writeFile(join(folder, generation, "ca.crt"), authorities);
  await symlink(generation, join(folder, "..data_tmp"));
  await rename(join(folder, "..data_tmp"), join(folder, "..data"));
}

async function open(
  parts: AsyncDisposableStack,
  change: Partial<BootstrapperFlags> = {},
  logger: Logger = silentLogger,
): Promise<Bootstrapper> {
  const flags: BootstrapperFlags = {
    listenAddress: "127.0.0.1:0",
    healthAddress: "127.0.0.1:0",
    metricsAddress: "127.0.0.1:0",
    certificateDirectory: join(directory, "certificates"),
    ipFamilies: ["IPv4"],
    limit: 10,
    shutdownDelaySeconds: 0,
    logLevel: "INFO",
    ...(change.kubeconfig === undefined ? { nodesFile: join(directory, "nodes.json") } : {}),
    ...change,
  };
  const stop = new AbortController();
  parts.defer(() => stop.abort());
  return parts.use(await openBootstrapper({ logger, environment: {}, signal: stop.signal }, flags));
}

interface Answer {
  readonly status: number | undefined;
  readonly body: string;
  readonly allow: string | undefined;
}

/** One request as `identity`; a new connection unless an agent is given. */
function ask(
  address: string,
  identity: CertifiedKey | undefined,
  options: RequestOptions = {},
): Promise<Answer> {
  const [host, port] = address.split(":");
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host,
        port,
        path: "/bootstrap-nodes",
        servername: "bootstrapper.example",
        ca: authority.certificatePem,
        ...(identity ? { cert: identity.certificatePem, key: identity.privateKeyPem } : {}),
        agent: false,
        ...options,
      },
      (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
        response.on("end", () =>
          resolve({ status: response.statusCode, body, allow: response.headers.allow }),
        );
        response.on("error", reject);
      },
    );
    outgoing.on("error", reject).end();
  });
}

function askPlain(address: string, path: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    get(`http://${address}${path}`, { agent: new PlainAgent({ keepAlive: false }) }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      response.on("end", () => resolve({ status: response.statusCode, body, allow: response.headers.allow }));
    }).on("error", reject);
  });
}

/** A logger, and a promise for the next line with this message. */
function listen(): { readonly logger: Logger; readonly next: (message: string) => Promise<void> } {
  const waiting = new Map<string, () => void>();
  const write = (line: string): void => waiting.get((JSON.parse(line) as { msg: string }).msg)?.();
  return {
    logger: createLogger({ level: "DEBUG", sink: { write } }),
    next: (message) => new Promise((resolve) => waiting.set(message, resolve)),
  };
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "bootstrapper-"));
  key = await createKeyPair({ bits: 2048 });
  authority = await newAuthority("ca-1");
  server = await leaf(authority, "server");
  client = await leaf(authority, "client");
  await mountSecret("certificates", server, authority.certificatePem);
  await writeFile(join(directory, "nodes.json"), NODES);
});

after(() => rm(directory, { recursive: true }));

describe("the bootstrapper", () => {
  it("gives the nodes to a client of its authority, and nothing else to anybody", async () => {
    await using parts = new AsyncDisposableStack();
    const { address } = await open(parts);
    const { status, body } = await ask(address, client);
    assert.deepEqual(
      [status, body],
      [200, '[{"ID":"","Addrs":["/ip4/10.0.0.1"]},{"ID":"","Addrs":["/ip4/10.0.0.2"]}]'],
    );
    assert.equal((await ask(address, client, { path: "/" })).status, 404);
    assert.equal((await ask(address, client, { path: "/bootstrap-nodes/" })).status, 404);
    assert.equal((await ask(address, client, { path: "/bootstrap-nodes?x=1" })).status, 200);
    for (const method of ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"]) {
      const refused = await ask(address, client, { method });
      assert.deepEqual([refused.status, refused.allow], [405, "GET"], method);
    }
  });

  it("refuses every other handshake", async () => {
    await using parts = new AsyncDisposableStack();
    const { address, metricsAddress } = await open(parts);
    const other = await createKeyPair({ bits: 2048 });
    const validity = { validityMs: HOUR_MS, nowMs: Date.now() };
    const impostor = await issueAuthority({ commonName: "ca-1", ...validity, key: other });
    const strangers: Record<string, CertifiedKey | undefined> = {
      "no certificate": undefined,
      "a foreign authority of the same name": await leaf(impostor, "client"),
      "a server's certificate": server,
      "an expired certificate": await leaf(authority, "client", Date.now() - 2 * HOUR_MS),
      "a certificate of the future": await leaf(authority, "client", Date.now() + 2 * HOUR_MS),
    };
    for (const [name, identity] of Object.entries(strangers)) {
      await assert.rejects(ask(address, identity), { name: "Error" }, name);
    }
    await assert.rejects(ask(address, client, { maxVersion: "TLSv1.2" }), "TLS 1.2");
    const { body } = await askPlain(metricsAddress, "/metrics");
    assert.match(body, /spegel_bootstrapper_handshake_failures_total [56]\n/);
    assert.equal((await ask(address, client)).status, 200);
  });

  it("refuses a certificate of its authority that is not for clients", async () => {
    await using parts = new AsyncDisposableStack();
    const { address } = await open(parts);
    assert.equal((await ask(address, authority)).status, 403);
  });

  it("survives what is no TLS and what is no HTTP", async () => {
    await using parts = new AsyncDisposableStack();
    const { address } = await open(parts);
    const [host = "", port = ""] = address.split(":");
    const raw = connectTCP(Number(port), host);
    raw.end("GET / HTTP/1.1\r\n\r\n");
    await once(raw.resume(), "close");
    const tls = connect({
      host,
      port: Number(port),
      servername: "bootstrapper.example",
      ca: authority.certificatePem,
      cert: client.certificatePem,
      key: client.privateKeyPem,
    });
    tls.on("error", () => {});
    tls.write("\x00\x01nonsense\r\n\r\n");
    await once(tls.resume(), "close");
    assert.match(
      (await ask(address, client, { headers: { "x-large": "x".repeat(20_000) } })).status?.toString() ?? "",
      /431/,
    );
    assert.equal((await ask(address, client)).status, 200);
  });

  it("changes its certificates while it runs, without dropping a connection", async () => {
    await using parts = new AsyncDisposableStack();
    const folder = await mountSecret("rotating", server, authority.certificatePem);
    const { logger, next } = listen();
    const { address } = await open(parts, { certificateDirectory: folder }, logger);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    parts.defer(() => agent.destroy());
    assert.equal((await ask(address, client, { agent })).status, 200);
    const [socket] = Object.values(agent.freeSockets).flat() as TLSSocket[];

    const other = await createKeyPair({ bits: 2048 });
    const second = await issueAuthority({
      commonName: "ca-2",
      validityMs: HOUR_MS,
      nowMs: Date.now(),
      key: other,
    });
    const secondClient = await leaf(second, "client");
    await assert.rejects(ask(address, secondClient));

    let replaced = next("server certificate replaced");
    await swapSecret(folder, "..2", server, `${second.certificatePem}${authority.certificatePem}`);
    await replaced;
    assert.equal((await ask(address, client)).status, 200);
    assert.equal((await ask(address, secondClient)).status, 200);

    replaced = next("server certificate replaced");
    await swapSecret(folder, "..3", await leaf(second, "server"), second.certificatePem);
    await replaced;
    await assert.rejects(ask(address, client, { ca: second.certificatePem }), "the authority is gone");
    assert.equal((await ask(address, secondClient, { ca: second.certificatePem })).status, 200);
    await assert.rejects(
      ask(address, client, { ca: second.certificatePem, session: socket?.getSession() } as RequestOptions),
      "a session from before is not resumed",
    );
    assert.equal((await ask(address, client, { agent })).status, 200, "the open connection goes on");
    assert.equal(Object.values(agent.freeSockets).flat()[0], socket);
  });

  it("keeps its certificates when new ones do not fit together", async () => {
    await using parts = new AsyncDisposableStack();
    const folder = await mountSecret("broken", server, authority.certificatePem);
    const { logger, next } = listen();
    const { address } = await open(parts, { certificateDirectory: folder }, logger);
    const other = await createKeyPair({ bits: 2048 });
    const broken: [CertifiedKey, string][] = [
      [{ ...server, privateKeyPem: other.privateKeyPem }, authority.certificatePem],
      [{ ...server, certificatePem: "" }, authority.certificatePem],
      [server, "no certificate"],
    ];
    for (const [index, [leafKey, authorities]] of broken.entries()) {
      const refused = next("server certificate not replaced, the last one stays");
      await swapSecret(folder, `..b${index}`, leafKey, authorities);
      await refused;
      assert.equal((await ask(address, client)).status, 200);
    }
  });

  it("does not start without good certificates, and says which file it is", async () => {
    await using parts = new AsyncDisposableStack();
    await assert.rejects(open(parts, { certificateDirectory: join(directory, "absent") }), {
      code: "HTTP_CERTIFICATE_INVALID",
      message: `${join(directory, "absent", "tls.crt")} cannot be read`,
    });
    const folder = await mountSecret("empty-authorities", server, "");
    await assert.rejects(open(parts, { certificateDirectory: folder }), /client authorities are not PEM/);
  });

  it("lists the nodes of a cluster, and is ready once it knows them", async () => {
    await using parts = new AsyncDisposableStack();
    const api = parts.use(await startApiServer());
    const fault = api.faults;
    assert.ok(fault);
    api.seed([
      {
        apiVersion: "v1",
        kind: "Node",
        metadata: { name: "a", creationTimestamp: "2026-11-20T10:00:00Z" },
        status: {
          addresses: [
            { type: "InternalIP", address: "10.0.0.7" },
            { type: "InternalIP", address: "fd00::7" },
          ],
          conditions: [{ type: "Ready", status: "True" }],
        },
      },
    ]);
    await writeFile(join(directory, "kubeconfig"), api.kubeconfig());
    const { address, healthAddress } = await open(parts, {
      kubeconfig: join(directory, "kubeconfig"),
      ipFamilies: ["IPv6", "IPv4"],
    });
    assert.equal((await askPlain(healthAddress, "/healthz")).status, 200);
    while ((await askPlain(healthAddress, "/readyz")).status !== 200) await nextTurn();
    assert.equal((await ask(address, client)).body, '[{"ID":"","Addrs":["/ip6/fd00::7","/ip4/10.0.0.7"]}]');
  });

  it("answers 503 and is not ready while the cluster was never seen", async () => {
    await using parts = new AsyncDisposableStack();
    const api = await startApiServer({ plain: true });
    const kubeconfig = join(directory, "unreachable");
    await writeFile(kubeconfig, api.kubeconfig());
    await api[Symbol.asyncDispose]();
    const { address, healthAddress } = await open(parts, { kubeconfig });
    assert.equal((await ask(address, client)).status, 503);
    const ready = await askPlain(healthAddress, "/readyz");
    assert.deepEqual([ready.status, ready.body], [503, "the nodes are not known yet\n"]);
    assert.equal((await askPlain(healthAddress, "/healthz")).status, 200);
    assert.equal((await askPlain(healthAddress, "/metrics")).status, 404);
  });
});

describe("readFlags", () => {
  const read = (argv: string[], environment: Record<string, string> = {}): Promise<BootstrapperFlags> =>
    readFlags({ argv, environment });

  it("has the defaults of the deployment", async () => {
    assert.deepEqual(
      { ...(await read(["--certificate-directory=/certs"])) },
      {
        listenAddress: ":8443",
        healthAddress: ":8081",
        metricsAddress: ":8080",
        certificateDirectory: "/certs",
        ipFamilies: ["IPv4"],
        limit: 10,
        shutdownDelaySeconds: 5,
        logLevel: "INFO",
      },
    );
  });

  it("reads flags before the environment, and lists in both forms", async () => {
    const environment = {
      CERTIFICATE_DIRECTORY: "/e",
      LIMIT: "5",
      IP_FAMILIES: "IPv6,IPv4",
      LOG_LEVEL: "debug",
    };
    const flags = await read(["--certificate-directory", "/f"], environment);
    assert.deepEqual(
      [flags.certificateDirectory, flags.limit, flags.ipFamilies, flags.logLevel],
      ["/f", 5, ["IPv6", "IPv4"], "DEBUG"],
    );
    for (const words of [["--ip-families=IPv4,IPv6"], ["--ip-families", "IPv4", "IPv6"]]) {
      assert.deepEqual((await read(["--certificate-directory=/c", ...words])).ipFamilies, ["IPv4", "IPv6"]);
    }
  });

  it("names every wrong setting", async () => {
    const cases: [RegExp, string[]][] = [
      [/--certificate-directory: is required/, []],
      [/--listen-address: "8443" is not an address/, ["--listen-address=8443"]],
      [/--limit: must be between 1 and 1000/, ["--limit=0"]],
      [/--shutdown-delay-seconds: must be between 0 and 300/, ["--shutdown-delay-seconds=-1"]],
      [/--limit: "many" is not a whole number/, ["--limit=many"]],
      [/--ip-families: must be IPv4, IPv6 or both/, ["--ip-families=IPv4,IPv4"]],
      [/--ip-families: must be IPv4, IPv6 or both/, ["--ip-families=ipv4"]],
      [/--nodes-file: cannot be combined with --kubeconfig/, ["--kubeconfig=/k", "--nodes-file=/n"]],
      [/--log-level: "LOUD" is not valid/, ["--log-level=LOUD"]],
      [/--cluster: is not a known flag/, ["--cluster=x"]],
    ];
    for (const [message, argv] of cases) await assert.rejects(read(argv), message);
    await assert.rejects(read(["--limit=0", "--ip-families="]), (error: Error) =>
      ["--certificate-directory", "--limit", "--ip-families"].every((flag) => error.message.includes(flag)),
    );
  });
});

describe("the program", () => {
  async function end(child: ChildProcess, signal?: NodeJS.Signals): Promise<number | null> {
    if (signal) child.kill(signal);
    if (child.exitCode === null) await once(child, "exit");
    return child.exitCode;
  }

  function start(argv: readonly string[], environment: Record<string, string> = {}): ChildProcess {
    return spawn(process.execPath, [MAIN, ...argv], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  }

  async function textOf(stream: NodeJS.ReadableStream | null): Promise<string> {
    let text = "";
    for await (const chunk of stream ?? []) text += String(chunk);
    return text;
  }

  it("serves until SIGTERM and then ends with 0, also with a connection open", async () => {
    const addresses = ["--listen-address=127.0.0.1:0", "--health-address=127.0.0.1:0"];
    const child = start([...addresses, "--shutdown-delay-seconds=0"], {
      METRICS_ADDRESS: "127.0.0.1:0",
      CERTIFICATE_DIRECTORY: join(directory, "certificates"),
      NODES_FILE: join(directory, "nodes.json"),
    });
    const agent = new Agent({ keepAlive: true });
    try {
      let serving: { address: string } | undefined;
      for await (const line of createInterface({ input: child.stderr as NodeJS.ReadableStream })) {
        const fields = JSON.parse(line) as { msg: string; address: string };
        if (fields.msg === "serving") serving = fields;
        if (serving) break;
      }
      assert.ok(serving);
      assert.equal((await ask(serving.address, client, { agent })).status, 200);
      assert.equal(await end(child, "SIGTERM"), 0);
    } finally {
      agent.destroy();
      child.kill("SIGKILL");
    }
  });

  it("still answers for a while after SIGTERM, not ready, on connections that it closes", async () => {
    const addresses = ["--listen-address=127.0.0.1:0", "--health-address=127.0.0.1:0"];
    const child = start([...addresses, "--shutdown-delay-seconds=300"], {
      METRICS_ADDRESS: "127.0.0.1:0",
      CERTIFICATE_DIRECTORY: join(directory, "certificates"),
      NODES_FILE: join(directory, "nodes.json"),
    });
    const agent = new Agent({ keepAlive: true });
    try {
      const lines = createInterface({ input: child.stderr as NodeJS.ReadableStream })[Symbol.asyncIterator]();
      const next = async (message: string): Promise<{ address: string; health: string }> => {
        for (;;) {
          const fields = JSON.parse(String((await lines.next()).value)) as {
            msg: string;
            address: string;
            health: string;
          };
          if (fields.msg === message) return fields;
        }
      };
      const { address, health } = await next("serving");
      assert.equal((await ask(address, client, { agent })).status, 200);
      child.kill("SIGTERM");
      await next("stopping");
      assert.deepEqual(await askPlain(health, "/readyz"), {
        status: 503,
        body: "the program is stopping\n",
        allow: undefined,
      });
      assert.equal((await ask(address, client, { agent })).status, 200);
      assert.deepEqual(Object.keys(agent.freeSockets), [], "the connection is not kept");
      assert.equal((await ask(address, client, { agent })).status, 200, "a new one is welcome");
      assert.equal(await end(child, "SIGTERM"), 1, "a second signal waits for nothing");
    } finally {
      agent.destroy();
      child.kill("SIGKILL");
    }
  });

  it("explains itself with --help, and refuses wrong flags with 2", async () => {
    const help = start(["--help"]);
    assert.match(await textOf(help.stdout), /--certificate-directory STRING[\s\S]*\[env: IP_FAMILIES\]/);
    assert.equal(await end(help), 0);
    const wrong = start(["--port=1"]);
    assert.match(
      await textOf(wrong.stderr),
      /--port: is not a known flag[\s\S]*Usage: registry-spegel-bootstrapper/,
    );
    assert.equal(await end(wrong), 2);
  });

  it("ends with 1 when it cannot start", async () => {
    const child = start(["--certificate-directory=/nonexistent", "--nodes-file=/nonexistent"]);
    assert.match(await textOf(child.stderr), /bootstrapper: \/nonexistent\/tls\.crt cannot be read/);
    assert.equal(await end(child), 1);
  });
});
