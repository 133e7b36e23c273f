// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningProcess, startProcess } from "../process/index.ts";
import { findFreePorts } from "./free-ports.ts";

/** A running etcd, with its data in a folder that goes with it. */
export interface Etcd extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
}

const READY_TIMEOUT_MS = 60_000;
/** Another process may take a free port before etcd does. */
const ATTEMPTS = 3;

export async function startEtcd(options: {
  readonly path: string;
  readonly signal: AbortSignal;
}): Promise<Etcd> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await tryToStart(options);
    } catch (error) {
      if (attempt === ATTEMPTS || !/address already in use/.test(String(error))) throw error;
    }
  }
}

async function tryToStart(options: { readonly path: string; readonly signal: AbortSignal }): Promise<Etcd> {
  await using parts = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "etcd-"));
  parts.defer(() => rm(directory, { recursive: true, force: true }));
  const [clientPort, peerPort] = await findFreePorts(2);
  const url = `http://127.0.0.1:${clientPort}`;
  const peerURL = `http://127.0.0.1:${peerPort}`;
  const running: RunningProcess = parts.use(
    await startProcess({
      name: "etcd",
      command: options.path,
      args: [
        `--data-dir=${directory}`,
        `--listen-client-urls=${url}`,
        `--advertise-client-urls=${url}`,
        `--listen-peer-urls=${peerURL}`,
        `--initial-advertise-peer-urls=${peerURL}`,
        `--initial-cluster=default=${peerURL}`,
        // What it stores is thrown away.
        "--unsafe-no-fsync",
        "--logger=zap",
        "--log-level=warn",
      ],
      ready: { kind: "http", url: `${url}/health` },
      readyTimeoutMs: READY_TIMEOUT_MS,
      signal: options.signal,
    }),
  );
  const owned = parts.move();
  return { url, pid: running.pid, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
