// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  access,
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { createServer, type IncomingHttpHeaders, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { METRICS_SCRIPT } from "./metrics-script.ts";

const ALL = [
  "# HELP spegel_mirror_requests_total Total number of mirror requests.",
  "# TYPE spegel_mirror_requests_total counter",
  'spegel_mirror_requests_total{registry="ghcr.io",cache="hit"} 7',
  "# HELP http_request_duration_seconds The latency of the HTTP requests.",
  "# TYPE http_request_duration_seconds histogram",
  'http_request_duration_seconds_bucket{handler="blob",le="+Inf"} 3',
  "# HELP go_goroutines Number of goroutines.",
  "# TYPE go_goroutines gauge",
  "go_goroutines 8",
  "process_open_fds 9",
  "promhttp_metric_handler_requests_total 1",
  "libp2p_http_x 1",
  'other{spegel_="1"} 2',
  "",
].join("\n");
const WANTED = `${ALL.split("\n").slice(0, 6).join("\n")}\n`;
const TOOLS = ["sh", "mkdir", "dirname", "rm", "mv", "chmod", "grep", "tail", "sleep"];

let directory: string;
let server: Server;
let answer: RequestListener;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "metrics-"));
  await writeFile(join(directory, "spegel_metrics.sh"), METRICS_SCRIPT);
  await chmod(join(directory, "spegel_metrics.sh"), 0o755);
  answer = (_request, response) => response.end(ALL);
  server = createServer((request, response) => answer(request, response));
  await once(server.listen(0, "127.0.0.1"), "listening");
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(directory, { recursive: true });
});

const target = (): string => join(directory, "collector", "spegel.prom");

const FETCHERS: Readonly<Record<string, readonly string[]>> = {
  curl: ["curl"],
  wget: ["wget"],
  bash: ["bash", "cat", "timeout"],
};

async function find(command: string): Promise<string | undefined> {
  for (const path of [`/bin/${command}`, `/usr/bin/${command}`]) {
    const exists = access(path).then(
      () => true,
      () => false,
    );
    if (await exists) return path;
  }
  return undefined;
}

/** A folder with what the script needs and one of the fetchers; undefined where this machine has not got that. */
async function pathOf(name: string, commands: readonly string[]): Promise<string | undefined> {
  const folder = join(directory, `bin-${name}`);
  await mkdir(folder);
  for (const command of [...TOOLS, ...commands]) {
    const found = await find(command);
    if (found === undefined) return undefined;
    await symlink(found, join(folder, command));
  }
  return folder;
}

/** Calls the test with a PATH for each fetcher of this machine; there is at least one. */
async function withEachFetcher(test: (path: string, name: string) => Promise<void>): Promise<void> {
  let count = 0;
  for (const [name, commands] of Object.entries(FETCHERS)) {
    const path = await pathOf(name, commands);
    if (path === undefined) continue;
    await test(path, name);
    count++;
  }
  assert.ok(count > 0);
}

/** Runs the script once; its exit status. */
async function publish(
  options: {
    readonly path?: string;
    readonly port?: number;
    readonly shell?: string;
    readonly environment?: Readonly<Record<string, string>>;
  } = {},
): Promise<number | null> {
  const { port = (server.address() as AddressInfo).port, shell = "/bin/sh" } = options;
  const child = spawn(shell, [join(directory, "spegel_metrics.sh"), String(port), target(), "0"], {
    env: { PATH: options.path ?? "/usr/bin:/bin", ...options.environment },
    stdio: ["ignore", "ignore", "ignore"],
  });
  const [code] = (await once(child, "exit")) as [number | null];
  return code;
}

describe("spegel_metrics.sh", () => {
  it("copies the families of spegel and of HTTP with their help, and no others", async () => {
    assert.equal(await publish(), 0);
    assert.equal(await readFile(target(), "utf8"), WANTED);
  });

  it("leaves one readable file and nothing else in the folder", async () => {
    await publish();
    assert.deepEqual(await readdir(join(directory, "collector")), ["spegel.prom"]);
    assert.equal(((await stat(target())).mode & 0o777).toString(8), "644");
    assert.equal(((await stat(join(directory, "collector"))).mode & 0o777).toString(8), "755");
  });

  it("does the same with curl, with wget and with bash alone", async () => {
    await withEachFetcher(async (path, name) => {
      assert.equal(await publish({ path }), 0, name);
      assert.equal(await readFile(target(), "utf8"), WANTED, name);
      await rm(target());
    });
  });

  it("runs in dash and in bash", async () => {
    for (const name of ["dash", "bash"]) {
      const shell = await find(name);
      if (shell === undefined) continue; // the first test has run it in this machine's sh
      assert.equal(await publish({ shell }), 0);
      assert.equal(await readFile(target(), "utf8"), WANTED);
    }
  });

  it("keeps the last metrics when there is no good answer", async () => {
    const failures: Readonly<Record<string, RequestListener>> = {
      "an error page": (_request, response) => response.writeHead(500).end("spegel_x 1\n"),
      "no metrics": (_request, response) => response.end("<html></html>\n"),
      "an empty body": (_request, response) => response.end(),
      "a cut number": (_request, response) => response.end("spegel_x 12"),
      "a cut connection": (_request, response) => {
        response.writeHead(200, { "content-length": 100 });
        response.write("spegel_x 1\n", () => response.destroy());
      },
    };
    await publish();
    for (const [name, listener] of Object.entries(failures)) {
      answer = listener;
      assert.notEqual(await publish(), 0, name);
      assert.equal(await readFile(target(), "utf8"), WANTED, name);
      assert.deepEqual(await readdir(join(directory, "collector")), ["spegel.prom"], name);
    }
  });

  it("takes an error page for a failure whatever fetches it", async () => {
    answer = (_request, response) => response.writeHead(404).end("spegel_x 1\n");
    await withEachFetcher(async (path, name) => {
      assert.notEqual(await publish({ path }), 0, name);
    });
    await assert.rejects(access(target()), { code: "ENOENT" });
  });

  it("fails when nobody listens or nothing can fetch", async () => {
    const { port } = server.address() as AddressInfo;
    assert.notEqual(await publish({ path: (await pathOf("none", [])) ?? "" }), 0);
    await new Promise((resolve) => server.close(resolve));
    assert.notEqual(await publish({ port }), 0);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
  });

  it("asks the daemon itself, whatever proxy the environment names", async () => {
    const seen: IncomingHttpHeaders[] = [];
    answer = (request, response) => {
      seen.push(request.headers);
      response.end(ALL);
    };
    const environment = { http_proxy: "http://127.0.0.1:1", HTTP_PROXY: "http://127.0.0.1:1" };
    let runs = 0;
    await withEachFetcher(async (path, name) => {
      assert.equal(await publish({ environment, path }), 0, name);
      runs++;
    });
    assert.equal(seen.length, runs);
  });

  it("does not let a server that never stops fill the disk", async () => {
    answer = (_request, response) => {
      const chunk = "spegel_x 1\n".repeat(10_000);
      const write = (): void => {
        while (response.writable && response.write(chunk));
        if (response.writable) response.once("drain", write);
      };
      write();
    };
    assert.notEqual(await publish(), 0);
    await assert.rejects(access(target()), { code: "ENOENT" });
  });
});
