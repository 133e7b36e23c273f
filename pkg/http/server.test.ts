// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { Agent, type IncomingHttpHeaders, type RequestOptions, request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createLogger, silentLogger } from "#log";
import {
  createCertificateSource,
  createHTTPServer,
  createProbeServer,
  type HTTPServer,
  type HTTPServerOptions,
  openCertificateDirectory,
  type ServerCertificate,
} from "./index.ts";

interface Answer {
  readonly status: number | undefined;
  readonly body: string;
  readonly headers: IncomingHttpHeaders;
}

function ask(
  address: string,
  path: string,
  options: RequestOptions & { readonly body?: string } = {},
): Promise<Answer> {
  const { body, ...rest } = options;
  return new Promise((resolve, reject) => {
    const outgoing = request(`http://${address}${path}`, { agent: false, ...rest }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("end", () =>
        resolve({ status: response.statusCode, body: text, headers: response.headers }),
      );
      response.on("error", reject);
    });
    outgoing.on("error", reject).end(body);
  });
}

function open(change: Partial<HTTPServerOptions> = {}, logger = silentLogger): Promise<HTTPServer> {
  const answer = (body: string): { status: number; body: string; contentType: string } => ({
    status: 200,
    body,
    contentType: "text/plain",
  });
  return createHTTPServer(
    { logger },
    {
      address: "127.0.0.1:0",
      routes: [
        { method: "GET", path: "/get", handle: ({ body }) => answer(`got ${body.length}`) },
        { method: "POST", path: "/echo", handle: ({ body }) => answer(Buffer.from(body).toString()) },
        {
          method: "GET",
          path: "/broken",
          handle: () => {
            throw new Error("secret detail");
          },
        },
      ],
      ...change,
    },
  );
}

describe("createHTTPServer", () => {
  it("answers its routes, and 404 or 405 for everything else", async () => {
    await using server = await open();
    assert.equal((await ask(server.address, "/get")).body, "got 0");
    assert.equal((await ask(server.address, "/get?x=/echo")).status, 200);
    assert.equal((await ask(server.address, "/nowhere")).status, 404);
    for (const method of ["HEAD", "POST", "DELETE", "PROPFIND"]) {
      const { status, headers } = await ask(server.address, "/get", { method });
      assert.deepEqual([status, headers.allow], [405, "GET"], method);
    }
  });

  it("hands bodies of any type to the route as they came", async () => {
    await using server = await open();
    for (const type of ["application/json", "text/plain", "application/x-unknown"]) {
      const headers = { "content-type": type };
      const { status, body } = await ask(server.address, "/echo", {
        method: "POST",
        headers,
        body: "{broken",
      });
      assert.deepEqual([status, body], [200, "{broken"], type);
    }
  });

  it("refuses bodies and heads that are too large", async () => {
    await using server = await open({ maxBodyBytes: 100 });
    const post = { method: "POST", headers: { "content-type": "application/json" } };
    assert.equal((await ask(server.address, "/echo", { ...post, body: "x".repeat(100) })).status, 200);
    assert.equal((await ask(server.address, "/echo", { ...post, body: "x".repeat(101) })).status, 413);
    assert.equal((await ask(server.address, "/get", { headers: { x: "y".repeat(17_000) } })).status, 431);
  });

  it("refuses a body that grows too large on the way, and takes nothing of it for another request", async () => {
    await using server = await open({ maxBodyBytes: 100 });
    const socket = connect(server.port, "127.0.0.1").setEncoding("latin1");
    let received = "";
    socket.on("data", (text: string) => (received += text));
    const chunk = `c8\r\n${"x".repeat(200)}\r\n`;
    socket.write(`POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`);
    await once(socket, "close");
    assert.match(received, /^HTTP\/1\.1 413 .*connection: close/is);
    assert.equal(received.match(/HTTP\/1\.1/g)?.length, 1);
  });

  it("gives each of many requests at a time its own body, whatever its size and however it comes", async () => {
    const seen: string[] = [];
    await using server = await open({
      maxBodyBytes: 2_000_000,
      routes: [
        {
          method: "POST",
          path: "/echo",
          async handle({ body }) {
            await new Promise((resolve) => setImmediate(resolve)); // others come and go meanwhile
            const text = Buffer.from(body).toString();
            seen.push(text);
            return { status: 200, body: text, contentType: "text/plain" };
          },
        },
      ],
    });
    const sizes = [0, 1, 4095, 4096, 4097, 60_000, 131_072, 524_288, 524_289, 1_500_000];
    const headers = { "content-type": "text/plain" };
    for (let round = 0; round < 3; round++) {
      const bodies = sizes.flatMap((size, index) =>
        Array.from({ length: 6 }, (_, copy) =>
          String.fromCharCode(97 + ((index * 6 + copy) % 26)).repeat(size),
        ),
      );
      const answers = await Promise.all(
        bodies.map((body, index) =>
          ask(server.address, "/echo", {
            method: "POST",
            headers: index % 2 === 0 ? headers : { ...headers, "transfer-encoding": "chunked" },
            body,
          }),
        ),
      );
      for (const [index, { body }] of answers.entries()) assert.ok(body === bodies[index], `body ${index}`);
    }
    assert.equal(seen.length, 3 * 6 * sizes.length);
  });

  it("calls a client that leaves in the middle of its body no failure of its own", async () => {
    const lines: string[] = [];
    const logger = createLogger({ level: "INFO", sink: { write: (line) => void lines.push(line) } });
    await using server = await open({}, logger);
    const socket = connect(server.port, "127.0.0.1");
    socket.write("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\nhalf");
    await once(socket, "data");
    socket.resetAndDestroy();
    // One after the other on the server: whatever the first had to say is said.
    assert.equal((await ask(server.address, "/get")).status, 200);
    await server[Symbol.asyncDispose]();
    assert.deepEqual(lines, []);
  });

  it("answers 500 without details when a route fails, and logs it", async () => {
    const lines: string[] = [];
    const logger = createLogger({ level: "INFO", sink: { write: (line) => void lines.push(line) } });
    await using server = await open({}, logger);
    const { status, body } = await ask(server.address, "/broken");
    assert.deepEqual([status, body], [500, '{"message":"internal error"}']);
    assert.match(lines.join(""), /"path":"\/broken".*secret detail/);
  });

  it("closes connections beyond its limit", async () => {
    await using server = await open({ maxConnections: 1 });
    const agent = new Agent({ keepAlive: true });
    try {
      assert.equal((await ask(server.address, "/get", { agent })).status, 200);
      const second = connect(server.port, "127.0.0.1");
      second.on("error", () => {});
      await once(second.resume(), "close");
      assert.equal((await ask(server.address, "/get", { agent })).status, 200);
    } finally {
      agent.destroy();
    }
  });

  it("tells a route when its client is gone", async () => {
    const reached = Promise.withResolvers<AbortSignal>();
    const ended = Promise.withResolvers<void>();
    await using server = await open({
      routes: [
        {
          method: "GET",
          path: "/slow",
          async handle({ signal }) {
            reached.resolve(signal);
            await ended.promise;
            return { status: 200, body: "", contentType: "text/plain" };
          },
        },
      ],
    });
    const outgoing = request(`http://${server.address}/slow`, { agent: false });
    outgoing.on("error", () => {}).end();
    const signal = await reached.promise;
    const aborted = once(signal, "abort");
    outgoing.destroy();
    await aborted;
    ended.resolve();
  });

  it("lets a request finish when it stops, and cuts one that takes too long", async () => {
    for (const drainTimeoutMs of [60_000, 1]) {
      const reached = Promise.withResolvers<void>();
      const release = Promise.withResolvers<void>();
      const server = await open({
        drainTimeoutMs,
        routes: [
          {
            method: "GET",
            path: "/slow",
            async handle() {
              reached.resolve();
              await release.promise;
              return { status: 200, body: "done", contentType: "text/plain" };
            },
          },
        ],
      });
      const answer = ask(server.address, "/slow").then(
        ({ body }) => body,
        () => "cut",
      );
      await reached.promise;
      const stopped = server[Symbol.asyncDispose]();
      if (drainTimeoutMs > 1) release.resolve();
      assert.equal(await answer, drainTimeoutMs > 1 ? "done" : "cut");
      release.resolve();
      await stopped;
    }
  });

  it("reports an address that is taken or malformed", async () => {
    await using server = await open();
    await assert.rejects(open({ address: server.address }), { code: "EADDRINUSE" });
    await assert.rejects(open({ address: "nonsense" }), RangeError);
  });
});

describe("createProbeServer", () => {
  it("says whether the program lives and is ready", async () => {
    let reason: string | undefined = "not yet";
    await using server = await createProbeServer({ notReady: () => reason }, { address: "127.0.0.1:0" });
    assert.equal((await ask(server.address, "/healthz")).status, 200);
    const waiting = await ask(server.address, "/readyz");
    assert.deepEqual([waiting.status, waiting.body], [503, "not yet\n"]);
    reason = undefined;
    assert.equal((await ask(server.address, "/readyz?verbose")).status, 200);
    assert.equal((await ask(server.address, "/metrics")).status, 404);
    assert.equal((await ask(server.address, "/healthz", { method: "POST" })).status, 405);
  });

  it("serves metrics, and 500 when they cannot be rendered", async () => {
    const texts = ["a 1\n"];
    const metrics = {
      contentType: "text/plain; version=0.0.4",
      render: async () => texts.pop() ?? Promise.reject(new Error("broken")),
    };
    await using server = await createProbeServer({ metrics }, { address: "127.0.0.1:0" });
    const { body, headers } = await ask(server.address, "/metrics");
    assert.deepEqual([body, headers["content-type"]], ["a 1\n", "text/plain; version=0.0.4"]);
    assert.equal((await ask(server.address, "/metrics")).status, 500);
    assert.equal((await ask(server.address, "/healthz")).status, 404);
  });
});

describe("certificate sources", () => {
  let directory: string;
  let first: ServerCertificate;
  let second: ServerCertificate;

  before(() => {
    directory = mkdtempSync(join(tmpdir(), "certificates-"));
    first = make("first");
    second = make("second");
  });

  after(() => rmSync(directory, { recursive: true }));

  function make(name: string): ServerCertificate {
    const [key, certificate] = [join(directory, `${name}.key`), join(directory, `${name}.crt`)];
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    execFileSync(
      "openssl",
      ["req", "-x509", ...curve, "-days", "1", "-subj", `/CN=${name}`, "-keyout", key, "-out", certificate],
      { stdio: "ignore" },
    );
    return { certificatePem: readFileSync(certificate, "utf8"), keyPem: readFileSync(key, "utf8") };
  }

  it("tell their listeners of a new certificate until they leave", () => {
    const source = createCertificateSource(first);
    const seen: ServerCertificate[] = [];
    const subscription = source.subscribe((certificate) => seen.push(certificate));
    source.replace(second);
    subscription[Symbol.dispose]();
    source.replace(first);
    assert.deepEqual(seen, [second]);
    assert.equal(source.current, first);
  });

  it("keep the current certificate when a new one is no good, and never quote a key", () => {
    const source = createCertificateSource(first);
    const bad: [RegExp, ServerCertificate][] = [
      [/do not belong together/, { ...first, keyPem: second.keyPem }],
      [/certificate is not PEM/, { ...first, certificatePem: "x" }],
      [/key is not an unencrypted PEM key/, { ...first, keyPem: "topsecret" }],
      [/client authorities are not PEM/, { ...first, clientAuthoritiesPem: "" }],
    ];
    for (const [message, certificate] of bad) {
      assert.throws(
        () => source.replace(certificate),
        (error: Error) => message.test(error.message) && !String(error.cause).includes("topsecret"),
      );
    }
    assert.equal(source.current, first);
    assert.throws(() => createCertificateSource({ ...first, keyPem: second.keyPem }), {
      code: "HTTP_CERTIFICATE_INVALID",
    });
  });

  it("do not read a file without end", async () => {
    symlinkSync("/dev/zero", join(directory, "tls.crt"));
    const options = { directory, signal: new AbortController().signal };
    await assert.rejects(
      openCertificateDirectory({ logger: silentLogger }, options),
      /tls\.crt cannot be read/,
    );
  });
});
