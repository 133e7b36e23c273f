// SPDX-License-Identifier: Apache-2.0
/** The program `spegel registry` as a child process: start, flags, stop, and what ten thousand requests leave behind. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type Digest, sha256Digest } from "#oci";
import { openOCILayoutStore } from "#store";
import { anyFree } from "../demo/free-ports.ts";
import { type RunningProcess, startProcess } from "../kit/process/index.ts";

const signal = AbortSignal.timeout(170_000);
const NODES = ["127.0.0.31", "127.0.0.32"] as const;
const PROGRAM = [
  "--experimental-ffi",
  "--disable-warning=ExperimentalWarning",
  "--max-semi-space-size=1",
  "--max-old-space-size=64",
  "cmd/spegel/main.ts",
];

interface Daemon {
  readonly process: RunningProcess;
  readonly registry: string;
  readonly metrics: string;
  readonly directory: string;
}

/** Daemons on addresses of their own that know each other, each over its own layout folder. */
async function startDaemons(stack: AsyncDisposableStack, addresses: readonly string[]): Promise<Daemon[]> {
  const [registryPort, routerPort, metricsPort] = [
    await anyFree(addresses),
    await anyFree(addresses),
    await anyFree(addresses),
  ];
  const daemons: Daemon[] = [];
  let bootstrap: string[] = ["--bootstrap-kind=static"];
  for (const address of addresses) {
    const directory = await mkdtemp(join(tmpdir(), "registry-"));
    stack.defer(() => rm(directory, { recursive: true, force: true }));
    const idAddress = `${address}:${await anyFree([address])}`;
    const started = await startProcess({
      name: `spegel on ${address}`,
      command: process.execPath,
      args: [
        ...PROGRAM,
        "registry",
        `--store=oci-layout:${directory}`,
        `--registry-addr=${address}:${registryPort}`,
        `--router-addr=${address}:${routerPort}`,
        `--metrics-addr=${address}:${metricsPort}`,
        `--http-bootstrap-addr=${idAddress}`,
        "--log-level=WARN",
        "--mirror-resolve-timeout=1s",
        ...bootstrap,
      ],
      ready: { kind: "http", url: `http://${address}:${registryPort}/readyz` },
      readyTimeoutMs: 30_000,
      signal,
    });
    stack.use(started);
    bootstrap = ["--bootstrap-kind=http", `--http-bootstrap-url=http://${idAddress}/id`];
    daemons.push({
      process: started,
      registry: `http://${address}:${registryPort}`,
      metrics: `http://${address}:${metricsPort}`,
      directory,
    });
  }
  return daemons;
}

async function put(daemon: Daemon, bytes: Uint8Array): Promise<Digest> {
  const store = await openOCILayoutStore({ directory: daemon.directory }, { signal });
  const digest = sha256Digest(bytes);
  await store.put(digest, bytes, {
    signal,
    origin: { registry: "registry.example.test", repository: "lib/app" },
  });
  return digest;
}

const blobUrl = (daemon: Daemon, digest: Digest) =>
  `${daemon.registry}/v2/lib/app/blobs/${digest}?ns=registry.example.test`;

/** Status and hash-ready bytes of one answer, over kept-alive connections. */
function fetchBytes(
  url: string,
  agent: Agent,
  headers: Record<string, string> = {},
): Promise<{ status: number; body: Buffer }> {
  return new Promise((resolve, reject) => {
    get(url, { agent, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }));
      response.on("error", reject);
    }).on("error", reject);
  });
}

async function until(reached: () => Promise<boolean>): Promise<void> {
  while (!(await reached())) {
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

const openDescriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;
const residentMib = (pid: number): number =>
  Number(/^VmRSS:\s+([0-9]+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

describe("spegel registry", () => {
  it("leaves neither memory nor descriptors behind after 10,000 requests of all kinds", {
    timeout: 180_000,
  }, async () => {
    await using stack = new AsyncDisposableStack();
    const [holder, asker] = (await startDaemons(stack, NODES)) as [Daemon, Daemon];
    const small = await put(holder, randomBytes(2_000));
    const large = await put(holder, randomBytes(3_000_000));
    const agent = new Agent({ keepAlive: true, maxSockets: 16 });
    stack.defer(() => agent.destroy());
    await until(async () => (await fetchBytes(blobUrl(asker, large), agent)).status === 200);
    await until(async () => (await fetchBytes(blobUrl(asker, small), agent)).status === 200);

    const nobody = sha256Digest("nobody has this");
    const requests: [string, Record<string, string>, number][] = [
      [blobUrl(holder, small), {}, 200],
      [blobUrl(asker, small), {}, 200],
      [blobUrl(asker, large), { Range: "bytes=1000000-1099999" }, 206],
      [blobUrl(holder, large), { Range: "bytes=-70000" }, 206],
      [blobUrl(asker, nobody), { "X-Spegel-Mirrored": "true" }, 404],
      [blobUrl(asker, nobody), {}, 404],
      [`${asker.registry}/v2/`, {}, 200],
      [`${asker.registry}/v2/%`, {}, 404],
    ];
    async function send(count: number): Promise<void> {
      let next = 0;
      const worker = async (): Promise<void> => {
        while (next < count) {
          const [url, headers, status] = requests[next++ % requests.length] as (typeof requests)[number];
          assert.equal((await fetchBytes(url, agent, headers)).status, status, url);
        }
      };
      await Promise.all(Array.from({ length: 16 }, worker));
    }
    const measure = () =>
      [holder, asker].map(({ process: { pid } }) => ({
        descriptors: openDescriptors(pid),
        mib: residentMib(pid),
      }));

    await send(2_000); // the heap, the pools and the connections reach their size
    const before = measure();
    await send(10_000);
    const after = measure();
    for (const [index, start] of before.entries()) {
      const end = after[index] as (typeof before)[number];
      assert.ok(
        end.descriptors <= start.descriptors + 8,
        `descriptors: ${start.descriptors} before, ${end.descriptors} after`,
      );
      assert.ok(end.mib <= start.mib + 24, `MiB resident: ${start.mib} before, ${end.mib} after`);
    }
  });

  it("stops on SIGTERM with exit code 0 and frees its ports", { timeout: 60_000 }, async () => {
    await using stack = new AsyncDisposableStack();
    const [daemon] = (await startDaemons(stack, [NODES[0]])) as [Daemon];
    const exit = await daemon.process.stop();
    assert.deepEqual(exit, { code: 0, signal: null });
    await assert.rejects(fetch(`${daemon.registry}/livez`));
  });

  it("refuses to start with a message that names the setting", { timeout: 60_000 }, async () => {
    const cases: [string[], RegExp][] = [
      [[], /bootstrapKind: is required; one of dns, http, static/],
      [["--bootstrap-kind=http"], /--http-bootstrap-url: is required with --bootstrap-kind=http/],
      [["--bootstrap-kind=static", "--registry-filters=("], /registry filter .* is not an RE2 expression/],
      [
        ["--bootstrap-kind=static", "--mirrored-registries=docker.io"],
        /registry URL .*docker.io.* is not a URL/,
      ],
      [
        ["--bootstrap-kind=static", "--static-bootstrap-peers=/ip4/10.0.0.1/tcp/5001"],
        /--static-bootstrap-peers/,
      ],
    ];
    for (const [flags, message] of cases) {
      const output: string[] = [];
      const failed = await startProcess({
        name: "spegel",
        command: process.execPath,
        args: [...PROGRAM, "registry", "--store=oci-layout:/nonexistent/never-made", ...flags],
        ready: { kind: "spawned" },
        onLine: (line) => output.push(line.text),
        signal,
      });
      assert.equal((await failed.exited).code, 1, flags.join(" "));
      assert.match(output.join("\n"), message);
    }
  });

  it("ends with exit code 1 when its address is taken", { timeout: 60_000 }, async () => {
    await using stack = new AsyncDisposableStack();
    const [daemon] = (await startDaemons(stack, [NODES[0]])) as [Daemon];
    const directory = await mkdtemp(join(tmpdir(), "registry-"));
    stack.defer(() => rm(directory, { recursive: true, force: true }));
    const second = await startProcess({
      name: "spegel",
      command: process.execPath,
      args: [
        ...PROGRAM,
        "registry",
        `--store=oci-layout:${directory}`,
        "--bootstrap-kind=static",
        `--registry-addr=${new URL(daemon.registry).host}`,
        `--router-addr=${NODES[0]}:0`,
        `--metrics-addr=${NODES[0]}:0`,
      ],
      ready: { kind: "spawned" },
      signal,
    });
    assert.equal((await second.exited).code, 1);
    assert.match(second.output.lines.map((line) => line.text).join("\n"), /EADDRINUSE/);
  });
});
