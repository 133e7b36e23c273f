// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { openPlainServer, type PlainServer } from "#http";
import { silentLogger } from "#log";
import { runCleanup } from "./cleanup.ts";
import { runCleanupWait } from "./cleanup-wait.ts";

const SETTINGS = { logLevel: "INFO", threshold: 3, period: "1ms" } as const;

async function openAnswering(address: string, status: () => number): Promise<PlainServer> {
  return await openPlainServer(
    async (_request, response) => {
      response.writeHead(status(), { "content-length": 0 }).end();
      await Promise.resolve();
    },
    { address, drainTimeoutMs: 0 },
  );
}

/** Waits with a resolver that answers each round from a list; returns the rounds it took. */
async function waitFor(port: number, rounds: readonly (readonly string[] | Error)[]): Promise<number> {
  let at = 0;
  await runCleanupWait(
    { ...SETTINGS, probeEndpoint: `cleanup.example.test:${port}` },
    {
      log: silentLogger,
      signal: AbortSignal.timeout(20_000),
      resolve: (host) => {
        assert.equal(host, "cleanup.example.test");
        const answer = rounds[at++] ?? [];
        return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
      },
    },
  );
  return at;
}

describe("cleanup-wait", () => {
  it("ends after three rounds in a row in which all addresses answer", async () => {
    await using server = await openAnswering("127.0.0.1:0", () => 200);
    await using second = await openAnswering(`127.0.0.2:${server.port}`, () => 200);
    const both = ["127.0.0.1", "127.0.0.2"];
    assert.equal(await waitFor(second.port, [both, both, both]), 3);
  });

  it("starts over after a round without addresses, with an unknown name, or with a refusal", async () => {
    await using server = await openAnswering("127.0.0.1:0", () => 200);
    await using bad = await openAnswering(`127.0.0.2:${server.port}`, () => 404);
    const good = ["127.0.0.1"];
    const rounds = [
      good,
      good,
      [],
      good,
      new Error("ENOTFOUND"),
      good,
      good,
      ["127.0.0.1", "127.0.0.2"],
      good,
      good,
      good,
    ];
    assert.equal(await waitFor(bad.port, rounds), rounds.length);
  });

  it("does not wait for an address that accepts and stays silent, or where nobody listens", async () => {
    await using server = await openAnswering("127.0.0.1:0", () => 200);
    const silent: Server = createServer();
    await new Promise<void>((resolve) => silent.listen(server.port, "127.0.0.2", resolve));
    const good = ["127.0.0.1"];
    const rounds = [good, good, ["127.0.0.1", "127.0.0.2"], good, good, ["127.0.0.3"], good, good, good];
    assert.equal(await waitFor(server.port, rounds), rounds.length);
    silent.close();
  });

  it("asks every address when there are more than it asks at once", async () => {
    const asked = new Set<string>();
    const port = await freeServer(async (first) => first.port);
    const addresses = Array.from({ length: 25 }, (_, index) => `127.0.1.${index + 1}`);
    const servers: PlainServer[] = [];
    for (const address of addresses) {
      servers.push(
        await openAnswering(`${address}:${port}`, () => {
          asked.add(address);
          return 200;
        }),
      );
    }
    assert.equal(await waitFor(port, [addresses, addresses, addresses]), 3);
    assert.deepEqual([...asked].sort(), [...addresses].sort());
    for (const server of servers) await server[Symbol.asyncDispose]();
  });

  it("stops at a signal", async () => {
    const stop = new AbortController();
    const waiting = runCleanupWait(
      { ...SETTINGS, period: "1h", probeEndpoint: "cleanup.example.test:1" },
      {
        log: silentLogger,
        signal: stop.signal,
        resolve: () => {
          queueMicrotask(() => stop.abort());
          return Promise.resolve([]);
        },
      },
    );
    await assert.rejects(waiting, { name: "AbortError" });
  });
});

async function freeServer<T>(use: (server: PlainServer) => Promise<T>): Promise<T> {
  await using server = await openAnswering("127.0.1.250:0", () => 200);
  return await use(server);
}

describe("cleanup", () => {
  it("restores first and answers then, 200 to a GET of /readyz alone", async () => {
    const directory = await mkdtemp(join(tmpdir(), "cleanup-"));
    await mkdir(join(directory, "_backup/quay.io"), { recursive: true });
    await writeFile(join(directory, "_backup/quay.io/hosts.toml"), "server = 'https://a'");
    const stop = new AbortController();
    const address = Promise.withResolvers<string>();
    const running = runCleanup(
      { logLevel: "INFO", addr: "127.0.0.1:0", containerdRegistryConfigPath: directory },
      { log: silentLogger, signal: stop.signal, ready: address.resolve },
    );
    const base = `http://${await address.promise}`;
    assert.equal(await readFile(join(directory, "quay.io/hosts.toml"), "utf8"), "server = 'https://a'");
    const statuses: Record<string, number> = {};
    for (const [method, path] of [
      ["GET", "/readyz"],
      ["GET", "/readyz?verbose"],
      ["HEAD", "/readyz"],
      ["POST", "/readyz"],
      ["GET", "/"],
      ["GET", "/readyz/x"],
      ["POST", "/other"],
    ] as const) {
      const response = await fetch(base + path, { method });
      statuses[`${method} ${path}`] = response.status;
    }
    assert.deepEqual(statuses, {
      "GET /readyz": 200,
      "GET /readyz?verbose": 200,
      "HEAD /readyz": 200,
      "POST /readyz": 405,
      "GET /": 404,
      "GET /readyz/x": 404,
      "POST /other": 404,
    });
    stop.abort();
    await running;
    const { hostname, port } = new URL(base);
    await assert.rejects(
      new Promise((resolve, reject) =>
        connect(Number(port), hostname, resolve as () => void).once("error", reject),
      ),
      { code: "ECONNREFUSED" },
    );
    await rm(directory, { recursive: true });
  });
});
