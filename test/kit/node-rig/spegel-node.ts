// SPDX-License-Identifier: Apache-2.0
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type RunningProcess, startProcess } from "../process/index.ts";
import type { ContainerdNode } from "./containerd-node.ts";
import { inNamespace } from "./network.ts";

/** `spegel registry` on a node, as containerd's `_default` mirror. */
export interface SpegelNode extends AsyncDisposable {
  readonly node: ContainerdNode;
  readonly process: RunningProcess;
  /** The value of a counter or gauge, summed over its labels that contain `labels`. */
  metric(name: string, labels?: string): Promise<number>;
  /** Starts it again after it ended or was killed. */
  start(): Promise<void>;
  /** Whether containerd asks it, and by which port; true at first. Takes effect with the next request. */
  setMirror(enabled: boolean, port?: number): Promise<void>;
  /** The status of `/readyz`; 0 when nothing answers. */
  ready(): Promise<number>;
}

export interface SpegelNodeOptions {
  /** The program and what stands before `registry`. */
  readonly program: readonly string[];
  /** The node that is asked for the first peers, at every start; the first node of all has none at first. */
  bootstrap(): ContainerdNode | undefined;
  readonly flags?: readonly string[];
  readonly onLine?: (line: string) => void;
  readonly signal: AbortSignal;
}

export const REGISTRY_PORT = 5000;
const ROUTER_PORT = 5001;
const ID_PORT = 5002;
const METRICS_PORT = 9090;

/** Starts the daemon beside a containerd and makes it that containerd's mirror. The caller must be inside the rig's network. */
export async function startSpegelNode(node: ContainerdNode, options: SpegelNodeOptions): Promise<SpegelNode> {
  const mirror = join(node.certsDirectory, "_default");
  async function setMirror(enabled: boolean, port = REGISTRY_PORT): Promise<void> {
    await rm(mirror, { recursive: true, force: true });
    if (!enabled) return;
    await mkdir(mirror, { recursive: true });
    await writeFile(
      join(mirror, "hosts.toml"),
      `[host."http://127.0.0.1:${port}"]\n  capabilities = ["pull", "resolve"]\n`,
    );
  }
  await setMirror(true);
  const { address } = node.namespace;
  const start = (): Promise<RunningProcess> => {
    const other = options.bootstrap()?.namespace.address;
    const bootstrap =
      other === undefined
        ? ["--bootstrap-kind=static"]
        : ["--bootstrap-kind=http", `--http-bootstrap-url=http://${other}:${ID_PORT}/id`];
    const [command = "", ...args] = [
      ...inNamespace(node.namespace),
      ...options.program,
      "registry",
      `--containerd-sock=${node.socketPath}`,
      `--containerd-content-path=${node.contentPath}`,
      `--data-dir=${join(node.directory, "spegel")}`,
      `--registry-addr=:${REGISTRY_PORT}`,
      `--router-addr=:${ROUTER_PORT}`,
      `--metrics-addr=:${METRICS_PORT}`,
      `--http-bootstrap-addr=:${ID_PORT}`,
      ...bootstrap,
      ...(options.flags ?? []),
    ];
    const { onLine } = options;
    return startProcess({
      name: `spegel on ${address}`,
      command,
      args,
      ready: { kind: "http", url: `http://${address}:${REGISTRY_PORT}/readyz` },
      readyTimeoutMs: 30_000,
      ...(onLine === undefined ? {} : { onLine: (line: { readonly text: string }) => onLine(line.text) }),
      signal: options.signal,
    });
  };
  let running = await start();
  return {
    node,
    get process() {
      return running;
    },
    async metric(name, labels = "") {
      const text = await (
        await fetch(`http://${address}:${METRICS_PORT}/metrics`, { signal: options.signal })
      ).text();
      return text
        .split("\n")
        .filter(
          (line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels),
        )
        .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
    },
    async start() {
      await running.exited;
      running = await start();
    },
    setMirror,
    ready: () =>
      fetch(`http://${address}:${REGISTRY_PORT}/readyz`, { signal: options.signal }).then(
        (response) => response.status,
        () => 0,
      ),
    async [Symbol.asyncDispose]() {
      await running.stop();
    },
  };
}
