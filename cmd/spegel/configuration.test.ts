// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { silentLogger } from "#log";
import { runConfiguration } from "./configuration.ts";

const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function spegel(args: readonly string[], environment: Record<string, string> = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { PATH: process.env["PATH"] ?? "", ...environment };
    execFile(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", MAIN, ...args],
      { env },
      (error, stdout, stderr) => {
        resolve({
          code: typeof error?.code === "number" ? error.code : error === null ? 0 : 128,
          stdout,
          stderr,
        });
      },
    );
  });
}

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "configuration-"));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe("spegel configuration", () => {
  it("takes Spegel's flags and environment names", () =>
    inFolder(async (folder) => {
      const ended = await spegel(
        [
          "--log-level=WARN",
          "configuration",
          `--containerd-registry-config-path=${folder}`,
          "--mirror-targets",
          "http://fd00::7:30020",
          "http://10.0.0.8:30020",
          "--resolve-tags=false",
        ],
        { MIRRORED_REGISTRIES: "https://docker.io,https://quay.io" },
      );
      assert.deepEqual([ended.code, ended.stdout], [0, ""]);
      assert.match(
        ended.stderr,
        /^\{[^\n]*"targets":\["http:\/\/\[fd00::7\]:30020"[^\n]*before 2\.0 ignores[^\n]*\}\n$/,
      );
      assert.equal(
        await readFile(join(folder, "docker.io/hosts.toml"), "utf8"),
        `server = 'https://registry-1.docker.io'

[host.'http://[fd00::7]:30020']
capabilities = ['pull']
dial_timeout = '200ms'

[host.'http://10.0.0.8:30020']
capabilities = ['pull']
dial_timeout = '200ms'`,
      );
    }));

  it("refuses wrong settings with a message that names them, and changes nothing", () =>
    inFolder(async (folder) => {
      const path = `--containerd-registry-config-path=${folder}/certs.d`;
      const none = await spegel(["configuration", path]);
      assert.equal(none.code, 1);
      assert.match(none.stderr, /mirrorTargets: is required/);
      const bad = await spegel(["configuration", path, "--mirror-targets", "ftp://a"]);
      assert.equal(bad.code, 1);
      assert.match(bad.stderr, /mirror target is not usable: .*must use http or https/);
      await assert.rejects(readFile(join(folder, "certs.d")), { code: "ENOENT" });
    }));

  it("is undone by cleanup, which ends well when it is told to stop", () =>
    inFolder(async (folder) => {
      const path = `--containerd-registry-config-path=${folder}`;
      await spegel(["configuration", path, "--mirror-targets=http://10.0.0.7:1"]);
      // The port is taken by nobody else: 0 is any. The process is stopped once it says that it is done.
      const ended = await new Promise<number | null>((resolve) => {
        const child = execFile(process.execPath, [MAIN, "cleanup", path, "--addr=127.0.0.1:0"], { env: {} });
        child.stderr?.on("data", (line: string) => {
          if (line.includes("The configuration is restored")) child.kill("SIGTERM");
        });
        child.once("exit", resolve);
      });
      assert.equal(ended, 0);
      await assert.rejects(readFile(join(folder, "_default/hosts.toml")), { code: "ENOENT" });
    }));

  it("writes credentials of both parts, byte for byte", () =>
    inFolder(async (folder) => {
      await writeFile(join(folder, "username"), "hello");
      await writeFile(join(folder, "password"), "world");
      const directory = join(folder, "certs.d");
      await runConfiguration(
        {
          logLevel: "INFO",
          containerdRegistryConfigPath: directory,
          mirroredRegistries: [],
          mirrorTargets: ["http://10.0.0.7:1"],
          resolveTags: true,
          prependExisting: false,
        },
        { log: silentLogger, signal: new AbortController().signal, basicAuthDirectory: folder },
      );
      assert.match(
        await readFile(join(directory, "_default/hosts.toml"), "utf8"),
        /^\[host\.'http:\/\/10\.0\.0\.7:1'\.header\]\nAuthorization = 'Basic aGVsbG86d29ybGQ='$/m,
      );
    }));

  it("is told apart from words that are no command", async () => {
    const ended = await spegel(["constructor"]);
    assert.equal(ended.code, 1);
    assert.match(ended.stderr, /unknown command "constructor"/);
    const help = await spegel(["cleanup-wait", "--help"]);
    assert.equal(help.code, 0);
    assert.match(help.stdout, /--probe-endpoint .*\n.*\[env: PROBE_ENDPOINT\]/);
  });
});
