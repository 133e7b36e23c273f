// SPDX-License-Identifier: Apache-2.0
import { execFile } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { type RunningProcess, startProcess } from "../process/index.ts";
import type { ContainerdBinary } from "./containerd-binaries.ts";
import { type CRI, createCRI } from "./cri.ts";
import { inNamespace, type Namespace } from "./network.ts";

const execute = promisify(execFile);

/** A real containerd in a node's namespace, with root, state and socket of its own. */
export interface ContainerdNode extends AsyncDisposable {
  readonly namespace: Namespace;
  readonly directory: string;
  /** `1.6.20`, of the one that was started last. */
  readonly version: string;
  readonly socketPath: string;
  readonly contentPath: string;
  readonly certsDirectory: string;
  readonly cri: CRI;
  readonly process: RunningProcess;
  /** Ends it, by SIGTERM when nothing else is said, and waits until it is gone. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  /** Starts it over the same root after it was stopped; `binary` takes the place of the one that ran. */
  start(binary?: ContainerdBinary): Promise<void>;
  /** Removes all content, images and snapshots of a containerd that is stopped. */
  wipe(): Promise<void>;
  /** Runs `ctr` of the same version as a person on the node would; gives what it wrote. */
  ctr(...words: string[]): Promise<string>;
}

export interface ContainerdNodeOptions {
  readonly namespace: Namespace;
  readonly directory: string;
  /** Name resolution inside the node: lines of /etc/hosts. */
  readonly hosts: string;
  /** PEM file with the authority of the upstream's certificate. */
  readonly authorityFile: string;
  readonly binary: ContainerdBinary;
  readonly discardUnpackedLayers?: boolean;
  readonly signal: AbortSignal;
}

/** Starts containerd on a node and waits until it answers. Mounts it makes vanish with it. */
export async function startContainerdNode(options: ContainerdNodeOptions): Promise<ContainerdNode> {
  const { directory, namespace, signal } = options;
  for (const name of ["root", "state", "certs.d", "cni", "opt"])
    await mkdir(join(directory, name), { recursive: true });
  await writeFile(join(directory, "hosts"), options.hosts);
  await writeFile(join(directory, "resolv.conf"), "");
  const socketPath = join(directory, "containerd.sock");

  const onNode = (...words: string[]): readonly [string, string[]] => {
    const [command = "", ...args] = [
      ...inNamespace(namespace),
      ...["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c"],
      'mount --bind "$0/hosts" /etc/hosts && mount --bind "$0/resolv.conf" /etc/resolv.conf && exec "$@"',
      directory,
      ...words,
    ];
    return [command, args];
  };
  const env = { SSL_CERT_FILE: options.authorityFile };
  let { binary } = options;
  const start = async (): Promise<RunningProcess> => {
    const { version } = binary;
    const configuration = version.startsWith("1.") ? version1Configuration : version2Configuration;
    const configurationPath = join(directory, "config.toml");
    await writeFile(configurationPath, configuration(directory, options.discardUnpackedLayers ?? false));
    const [command, args] = onNode(binary.path, "--config", configurationPath);
    return startProcess({
      name: `containerd ${version} on ${namespace.address}`,
      command,
      args,
      env,
      ready: { kind: "line", pattern: /containerd successfully booted/ },
      readyTimeoutMs: 30_000,
      signal,
    });
  };

  let running = await start();
  const cri = createCRI(socketPath);
  return {
    namespace,
    directory,
    get version() {
      return binary.version;
    },
    socketPath,
    contentPath: join(directory, "root", "io.containerd.content.v1.content"),
    certsDirectory: join(directory, "certs.d"),
    cri,
    get process() {
      return running;
    },
    async stop(kill = "SIGTERM") {
      running.kill(kill);
      await running.exited;
    },
    async start(other = binary) {
      binary = other;
      running = await start();
    },
    async wipe() {
      for (const name of ["root", "state"]) {
        await rm(join(directory, name), { recursive: true, force: true });
        await mkdir(join(directory, name));
      }
    },
    async ctr(...words) {
      const [command, args] = onNode(binary.ctrPath, "--address", socketPath, ...words);
      const { stdout } = await execute(command, args, { env: { ...process.env, ...env }, signal });
      return stdout;
    },
    async [Symbol.asyncDispose]() {
      cri[Symbol.dispose]();
      await running.stop();
    },
  };
}

/** The version of a containerd binary, `1.6.20`. */
export async function containerdVersion(binary: string): Promise<string> {
  const { stdout } = await execute(binary, ["--version"]);
  const version = /\bv?([0-9]+\.[0-9]+\.[0-9]+)/.exec(stdout)?.[1];
  if (version === undefined) throw new Error(`${binary} --version says ${JSON.stringify(stdout)}`);
  return version;
}

// Snapshotters that need modules or devices, and services with sockets at fixed paths, are left out.
const DISABLED = [
  ...["aufs", "zfs", "devmapper", "btrfs", "blockfile", "erofs"].map(
    (name) => `io.containerd.snapshotter.v1.${name}`,
  ),
  "io.containerd.differ.v1.erofs",
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
];

function commonConfiguration(version: number, directory: string): string {
  return `version = ${version}
root = "${directory}/root"
state = "${directory}/state"
oom_score = 0
disabled_plugins = ${JSON.stringify(DISABLED)}
[grpc]
  address = "${directory}/containerd.sock"
[ttrpc]
  address = "${directory}/containerd.sock.ttrpc"
[metrics]
  address = ""
[plugins."io.containerd.internal.v1.opt"]
  path = "${directory}/opt"
`;
}

function version1Configuration(directory: string, discard: boolean): string {
  return `${commonConfiguration(2, directory)}
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "${directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    discard_unpacked_layers = ${discard}
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "${directory}/certs.d"
`;
}

function version2Configuration(directory: string, discard: boolean): string {
  return `${commonConfiguration(3, directory)}
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  discard_unpacked_layers = ${discard}
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "${directory}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    conf_dir = "${directory}/cni"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
`;
}
