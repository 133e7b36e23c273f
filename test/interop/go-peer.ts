// SPDX-License-Identifier: Apache-2.0
import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const MODULE = join(import.meta.dirname, "go");

/** The Go tool chain, in PATH or where its installer puts it; undefined when there is none. */
function findGo(): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/go/bin"];
  return folders.map((folder) => join(folder, "go")).find((path) => existsSync(path));
}

/** Why the tests cannot run here; false when they can. Under CI the tests run and fail. */
export function skipReason(): string | false {
  return findGo() === undefined && process.env["CI"] !== "true"
    ? "no Go tool chain: install Go 1.26 to compare with go-libp2p"
    : false;
}

/**
 * Compiles the peer in `go/` unless it is in the cache already: about a minute the first time, or three with nothing
 * downloaded yet. Resolves with the path of the executable.
 */
export async function buildGoPeer(): Promise<string> {
  const go = findGo();
  if (go === undefined) throw new Error("no Go tool chain");
  const sources = createHash("sha256");
  for (const name of readdirSync(MODULE).sort()) sources.update(readFileSync(join(MODULE, name)));
  const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "registry-spegel");
  const path = join(cache, `interop-peer-${sources.digest("hex").slice(0, 16)}`);
  if (existsSync(path)) return path;
  await mkdir(cache, { recursive: true });
  const draft = `${path}.${process.pid}`;
  await promisify(execFile)(go, ["build", "-trimpath", "-ldflags=-s -w", "-o", draft, "."], {
    cwd: MODULE,
    env: { ...process.env, CGO_ENABLED: "0" },
    timeout: 900_000,
  });
  await rename(draft, path);
  return path;
}

export interface GoPeer extends AsyncDisposable {
  readonly id: string;
  /** Multiaddrs without `/p2p/`. */
  readonly addresses: readonly string[];
  /** Makes the process hang, with its connections open, and lets it go on. */
  hang(hangs: boolean): void;
  /** Asks the peer, see `go/main.go`; rejects with its error. Requests are answered in order. */
  request(request: { readonly op: string } & Readonly<Record<string, unknown>>): Promise<unknown>;
}

export async function startGoPeer(path: string, args: readonly string[] = []): Promise<GoPeer> {
  const child = spawn(path, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const exited = once(child, "exit");

  async function nextLine(): Promise<unknown> {
    const { value, done } = await lines.next();
    if (done === true) throw new Error("the Go peer ended");
    return JSON.parse(value);
  }

  const greeting = (await nextLine()) as { readonly id: string; readonly addrs: string[] };
  let last: Promise<unknown> = Promise.resolve();
  return {
    id: greeting.id,
    addresses: greeting.addrs,
    hang: (hangs) => void child.kill(hangs ? "SIGSTOP" : "SIGCONT"),
    request(request) {
      const answer = last
        .catch(() => {})
        .then(async () => {
          child.stdin.write(`${JSON.stringify(request)}\n`);
          const { result, error } = (await nextLine()) as {
            readonly result?: unknown;
            readonly error?: string;
          };
          if (error !== undefined) throw new Error(`${request.op}: ${error}`);
          return result;
        });
      last = answer;
      return answer;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGCONT");
      child.stdin.end();
      await exited;
    },
  };
}
