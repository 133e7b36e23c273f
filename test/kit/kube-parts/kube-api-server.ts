// SPDX-License-Identifier: Apache-2.0
import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { get } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sleep } from "#async";
import { createKeyPair, issueAuthority, issueLeaf } from "#pki";
import { type RunningProcess, startProcess } from "../process/index.ts";
import { findFreePorts } from "./free-ports.ts";

/** A running kube-apiserver. It has no controllers: nothing collects garbage, and a deleted namespace stays. */
export interface KubeAPIServer extends AsyncDisposable {
  readonly url: string;
  /** PEM of the authority that signed its certificate. */
  readonly caCertificate: string;
  readonly certificatePem: string;
  readonly keyPem: string;
  /** Bearer token of a member of system:masters. */
  readonly token: string;
  readonly pid: number;
  /** Kills it, as a crash does; `start` brings it back on the same port with the same state. */
  kill(): Promise<void>;
  start(options: { readonly signal: AbortSignal }): Promise<void>;
}

export interface KubeAPIServerOptions {
  readonly path: string;
  readonly etcdURL: string;
  /** Where its objects lie in etcd; API servers with different ones share an etcd without seeing each other. */
  readonly prefix: string;
  readonly signal: AbortSignal;
}

const READY_TIMEOUT_MS = 120_000;
const POLL_INTERVAL_MS = 25;
const TOKEN = "admin-token";
const DAY_MS = 24 * 3_600_000;

export async function startKubeAPIServer(options: KubeAPIServerOptions): Promise<KubeAPIServer> {
  await using parts = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "kube-apiserver-"));
  parts.defer(() => rm(directory, { recursive: true, force: true }));
  const identity = await writeIdentity(directory);
  const [port] = await findFreePorts(1);
  const url = `https://127.0.0.1:${port}`;
  let running: RunningProcess | undefined;

  async function start({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    running = await startProcess({
      name: "kube-apiserver",
      command: options.path,
      args: argumentsOf(directory, port as number, options),
      ready: { kind: "spawned" },
      signal,
    });
    await awaitReady(running, url, identity.caCertificate, signal);
  }

  /** Killed, not asked: it would take three seconds, and its state is in etcd or not needed any more. */
  async function kill(): Promise<void> {
    running?.kill("SIGKILL");
    await running?.exited;
  }

  parts.defer(kill);
  await start(options);
  const owned = parts.move();
  return {
    ...identity,
    url,
    token: TOKEN,
    get pid() {
      return running?.pid ?? 0;
    },
    kill,
    start,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function argumentsOf(directory: string, port: number, options: KubeAPIServerOptions): string[] {
  return [
    `--etcd-servers=${options.etcdURL}`,
    `--etcd-prefix=/${options.prefix}`,
    "--bind-address=127.0.0.1",
    `--secure-port=${port}`,
    `--cert-dir=${directory}`,
    `--tls-cert-file=${join(directory, "tls.crt")}`,
    `--tls-private-key-file=${join(directory, "tls.key")}`,
    `--token-auth-file=${join(directory, "tokens.csv")}`,
    "--authorization-mode=RBAC",
    "--service-account-issuer=https://kubernetes.default.svc",
    `--service-account-key-file=${join(directory, "sa.key")}`,
    `--service-account-signing-key-file=${join(directory, "sa.key")}`,
    "--service-cluster-ip-range=10.96.0.0/16",
    // A small machine runs two of them.
    "--profiling=false",
    "--v=1",
  ];
}

interface Identity {
  readonly caCertificate: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

async function writeIdentity(directory: string): Promise<Identity> {
  const request = { validityMs: DAY_MS, nowMs: Date.now() };
  const keys = await Promise.all([createKeyPair({ bits: 2048 }), createKeyPair({ bits: 2048 })]);
  const authority = await issueAuthority({ ...request, commonName: "kubernetes", key: keys[0] });
  const leaf = await issueLeaf(authority, {
    ...request,
    usage: "server",
    commonName: "kube-apiserver",
    dnsNames: ["localhost", "kubernetes.default.svc"],
    ipAddresses: ["127.0.0.1"],
    key: keys[1],
  });
  const account = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const files = {
    "tls.crt": leaf.certificatePem,
    "tls.key": leaf.privateKeyPem,
    "sa.key": account.privateKey.export({ type: "sec1", format: "pem" }) as string,
    "tokens.csv": `${TOKEN},admin,admin-uid,system:masters\n`,
  };
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(directory, name), text, { mode: 0o600 });
  }
  return {
    caCertificate: authority.certificatePem,
    certificatePem: leaf.certificatePem,
    keyPem: leaf.privateKeyPem,
  };
}

async function awaitReady(
  running: RunningProcess,
  url: string,
  ca: string,
  signal: AbortSignal,
): Promise<void> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(READY_TIMEOUT_MS)]);
  const ended = running.exited.then(() => true as const);
  for (;;) {
    if (await isReady(`${url}/readyz`, ca)) return;
    const isEnded = await Promise.race([ended, sleep(POLL_INTERVAL_MS, { signal: deadline })]).catch(
      () => true,
    );
    if (isEnded !== true) continue;
    signal.throwIfAborted();
    running.kill("SIGKILL");
    throw new Error(`kube-apiserver did not become ready; it wrote:\n${running.output.tail(20)}`);
  }
}

function isReady(url: string, ca: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(
      url,
      { ca, agent: false, headers: { authorization: `Bearer ${TOKEN}` } },
      (response) => {
        response.resume();
        response.on("end", () => resolve(response.statusCode === 200));
        response.on("error", () => resolve(false));
      },
    );
    request.on("error", () => resolve(false));
    request.setTimeout(2000, () => request.destroy());
  });
}
