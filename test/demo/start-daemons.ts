// SPDX-License-Identifier: Apache-2.0
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { SpegelPorts } from "#api/spegel";
import { sleep } from "#async";
import { type RunningProcess, startProcess } from "../kit/process/index.ts";
import type { DemoNode } from "./demo-node.ts";
import { DemoError, demand } from "./errors.ts";
import { readExecStart } from "./read-unit.ts";

/** `spegel registry` on one node. */
export interface Daemon {
  readonly node: DemoNode;
  readonly process: RunningProcess;
  /** Its identity in the swarm; the log names peers by it. */
  readonly peerId: string;
  /** `http://address:registryPort` */
  readonly registry: string;
  /** `http://address:metricsPort` */
  readonly metrics: string;
}

export interface DaemonOptions {
  readonly ports: SpegelPorts;
  /** Where the bootstrapper listens; on a node, this is the seed's gateway. */
  readonly bootstrapper: { readonly address: string; readonly port: number };
  readonly signal: AbortSignal;
}

const READY_TIMEOUT_MS = 15_000;
const POLL_INTERVAL_MS = 20;

/**
 * Starts the daemon of every node with the flags of the unit that the node agent wrote, and waits until all of
 * them are in the swarm.
 */
export async function startDaemons(
  nodes: readonly DemoNode[],
  options: DaemonOptions,
  running: AsyncDisposableStack,
): Promise<readonly Daemon[]> {
  // All starts end before the first failure is told: whatever did start is in `running` then.
  const starts = await Promise.allSettled(nodes.map((node) => startDaemon(node, options, running)));
  const daemons = starts.map((start) => {
    if (start.status === "rejected") throw start.reason;
    return start.value;
  });
  const deadline = AbortSignal.any([options.signal, AbortSignal.timeout(READY_TIMEOUT_MS)]);
  for (const daemon of daemons) await awaitReady(daemon, options.signal, deadline);
  return daemons;
}

async function startDaemon(
  node: DemoNode,
  options: DaemonOptions,
  running: AsyncDisposableStack,
): Promise<Daemon> {
  const { ports, signal } = options;
  const [executable = "", ...words] = await readExecStart(node);
  demand(words[0] === "registry", `the unit starts "${executable} ${words[0]}", not "registry"`);
  const url = new URL(flagOf(words, "http-bootstrap-url"));
  const started = await startProcess({
    name: `spegel on ${node.name}`,
    command: join(node.root, executable),
    args: adaptFlags(words, node, options),
    env: {
      NODE_OPTIONS: `--require=${fileURLToPath(new URL("./node-names.cjs", import.meta.url))}`,
      DEMO_NAMES: JSON.stringify({ [url.hostname]: options.bootstrapper.address }),
    },
    ready: { kind: "http", url: `http://${node.address}:${ports.registryPort}/livez` },
    readyTimeoutMs: READY_TIMEOUT_MS,
    signal,
  });
  running.use(started);
  const serving = await started.waitForLine(/"msg":"Serving\."/, { timeoutMs: READY_TIMEOUT_MS, signal });
  const { peer } = JSON.parse(serving) as { readonly peer: string };
  return {
    node,
    process: started,
    peerId: peer,
    registry: `http://${node.address}:${ports.registryPort}`,
    metrics: `http://${node.address}:${ports.metricsPort}`,
  };
}

/** The unit's flags, moved from the node's file system and addresses to this machine's. */
export function adaptFlags(
  words: readonly string[],
  node: DemoNode,
  options: Pick<DaemonOptions, "bootstrapper">,
): readonly string[] {
  const adapt: Readonly<Record<string, (value: string) => string>> = {
    // On a node these listen on every address or on its loopback; here three nodes share one loopback.
    "registry-addr": (value) => `${node.address}${value.slice(value.lastIndexOf(":"))}`,
    "router-addr": (value) => `${node.address}${value.slice(value.lastIndexOf(":"))}`,
    "metrics-addr": (value) => `${node.address}${value.slice(value.lastIndexOf(":"))}`,
    "http-bootstrap-url": (value) => {
      const url = new URL(value);
      url.port = String(options.bootstrapper.port);
      return url.href;
    },
    "http-bootstrap-cert-dir": (value) => join(node.root, value),
    "data-dir": (value) => join(node.root, value),
    "containerd-sock": (value) => join(node.root, value),
    "containerd-content-path": (value) => join(node.root, value),
  };
  const adapted = words.map((word) => {
    const [, name = "", value = ""] = /^--([^=]+)=(.*)$/.exec(word) ?? [];
    return adapt[name] === undefined ? word : `--${name}=${adapt[name](value)}`;
  });
  return [...adapted, `--store=oci-layout:${node.storeDirectory}`];
}

function flagOf(words: readonly string[], name: string): string {
  const word = words.find((each) => each.startsWith(`--${name}=`));
  demand(word !== undefined, `the unit has no flag --${name}`);
  return word.slice(name.length + 3);
}

async function awaitReady(daemon: Daemon, signal: AbortSignal, deadline: AbortSignal): Promise<void> {
  while (!(await isReady(daemon, deadline))) {
    signal.throwIfAborted();
    await sleep(POLL_INTERVAL_MS, { signal: deadline }).catch(() => {
      signal.throwIfAborted();
      const message = `${daemon.process.name} found no other node within ${READY_TIMEOUT_MS} ms; it wrote:\n${daemon.process.output.tail(20)}`;
      throw new DemoError({ code: "DEMO_STEP_FAILED", message });
    });
  }
}

async function isReady(daemon: Daemon, signal: AbortSignal): Promise<boolean> {
  try {
    const response = await fetch(`${daemon.registry}/readyz`, { signal });
    await response.arrayBuffer();
    return response.status === 200;
  } catch {
    return false;
  }
}
