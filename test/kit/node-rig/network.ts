// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { promisify } from "node:util";

const execute = promisify(execFile);

/** A private network: one switch, an upstream and nodes, each in a network namespace of its own. No way leads out. */
export interface RigNetwork extends AsyncDisposable {
  readonly upstream: Namespace;
  readonly nodes: readonly Namespace[];
  /** Makes the upstream's registry refuse connections, or lets it answer again. Connections in use are cut off. */
  setUpstreamAvailable(available: boolean): Promise<void>;
  /** Takes a node's cable out, or puts it back. */
  setNodeConnected(node: Namespace, connected: boolean): Promise<void>;
  /** Limits what leaves a namespace, or lifts the limit. */
  setEgressRate(namespace: Namespace, bitsPerSecond: number | undefined): Promise<void>;
}

export interface Namespace {
  /** As `ip netns` names it. */
  readonly name: string;
  readonly address: string;
  /** The end of its cable at the switch. */
  readonly port: string;
}

const PREFIX = "10.77.0.";
const UPSTREAM_HOST = 2;
const FIRST_NODE_HOST = 11;
// What a registry that is down looks like: every connection is refused at once.
const OUTAGE =
  "table inet outage { chain input { type filter hook input priority 0; tcp dport 443 reject with tcp reset; }; }";

/**
 * Lays the network out; needs root. Names carry this process' id, so that runs do not meet.
 */
export async function openNetwork(options: { readonly nodes: number }): Promise<RigNetwork> {
  const prefix = `spegel${process.pid}`;
  const switchName = `${prefix}-sw`;
  const names: string[] = [];
  const ip = async (...words: string[]): Promise<void> => {
    await execute("ip", words);
  };
  const addNamespace = async (name: string): Promise<void> => {
    await ip("netns", "add", name);
    names.push(name);
    await ip("-n", name, "link", "set", "lo", "up");
  };
  await using opening = new AsyncDisposableStack();
  opening.defer(async () => {
    for (const name of names.toReversed()) await ip("netns", "del", name);
  });

  await addNamespace(switchName);
  await ip("-n", switchName, "link", "add", "br0", "type", "bridge", "forward_delay", "0", "stp_state", "0");
  await ip("-n", switchName, "link", "set", "br0", "up");

  async function plugIn(label: string, host: number): Promise<Namespace> {
    const name = `${prefix}-${label}`;
    const port = `p-${label}`;
    await addNamespace(name);
    await ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", switchName);
    await ip("-n", switchName, "link", "set", port, "master", "br0", "up");
    await ip("-n", name, "addr", "add", `${PREFIX}${host}/24`, "dev", "eth0");
    await ip("-n", name, "link", "set", "eth0", "up");
    return { name, address: `${PREFIX}${host}`, port };
  }

  const upstream = await plugIn("up", UPSTREAM_HOST);
  const nodes: Namespace[] = [];
  for (let index = 0; index < options.nodes; index++) {
    nodes.push(await plugIn(`n${index + 1}`, FIRST_NODE_HOST + index));
  }
  const setConnected = (namespace: Namespace, connected: boolean): Promise<void> =>
    ip("-n", switchName, "link", "set", namespace.port, connected ? "up" : "down");
  const opened = opening.move();
  return {
    upstream,
    nodes,
    async setUpstreamAvailable(available) {
      const nft = (rules: string): Promise<unknown> =>
        execute("ip", ["netns", "exec", upstream.name, "nft", rules]);
      if (available) await nft("delete table inet outage");
      else await nft(OUTAGE);
    },
    setNodeConnected: setConnected,
    async setEgressRate(namespace, bitsPerSecond) {
      const tc = (...words: string[]): Promise<unknown> =>
        execute("tc", ["-n", namespace.name, "qdisc", ...words, "dev", "eth0", "root"]);
      if (bitsPerSecond === undefined) {
        await tc("del");
        return;
      }
      // What may go out at once: 5 ms at that rate, and at least one large segment.
      const burstBytes = Math.max(16 * 1024, Math.round(bitsPerSecond / 8 / 200));
      const rate = ["rate", `${bitsPerSecond}bit`, "burst", `${burstBytes}`, "latency", "200ms"];
      await execute("tc", ["-n", namespace.name, "qdisc", "replace", "dev", "eth0", "root", "tbf", ...rate]);
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

/** The command that runs another one inside a namespace; it keeps the machine's own /sys, which runc needs. */
export function inNamespace(namespace: Namespace): readonly string[] {
  return ["nsenter", `--net=/run/netns/${namespace.name}`, "--"];
}

const CLONE_NEWNET = 0x40000000;

/**
 * Moves this process' main thread into a namespace until the returned value is disposed: sockets that it opens, and
 * programs that it starts, are then inside. The test can be upstream registry and driver at once.
 */
export async function enterNamespace(namespace: Namespace): Promise<Disposable> {
  const { dlopen } = await import("node:ffi");
  const { setns } = dlopen(null, { setns: { arguments: ["int32", "int32"], return: "int32" } }).functions;
  const enter = (path: string): void => {
    const fd = openSync(path, "r");
    try {
      if (Number(setns(fd, CLONE_NEWNET)) !== 0)
        throw new Error(`cannot enter ${path}: setns failed; is this root?`);
    } finally {
      closeSync(fd);
    }
  };
  const home = openSync("/proc/self/ns/net", "r");
  enter(`/run/netns/${namespace.name}`);
  return {
    [Symbol.dispose]() {
      setns(home, CLONE_NEWNET);
      closeSync(home);
    },
  };
}
