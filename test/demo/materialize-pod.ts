// SPDX-License-Identifier: Apache-2.0
/**
 * Plays kubelet for one container: its volumes become files below a folder, and what its arguments say about paths
 * and ports is moved to that folder and to free ports of this machine.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";
import { demand } from "./errors.ts";
import { anyFree } from "./free-ports.ts";

/** The fields of a Deployment that a single container needs. */
export interface DeploymentView {
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly spec: { readonly template: { readonly spec: PodView } };
}

interface PodView {
  readonly containers: readonly ContainerView[];
  readonly volumes?: readonly VolumeView[];
}

interface ContainerView {
  readonly name: string;
  readonly args?: readonly string[];
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
  readonly ports?: readonly { readonly name?: string; readonly containerPort: number }[];
  readonly volumeMounts?: readonly {
    readonly name: string;
    readonly mountPath: string;
    readonly subPath?: string;
  }[];
  readonly readinessProbe?: { readonly httpGet?: { readonly path?: string; readonly port: number | string } };
}

interface SecretSource {
  readonly name?: string;
  readonly secretName?: string;
  readonly items?: readonly { readonly key: string; readonly path: string }[];
}

interface VolumeView {
  readonly name: string;
  readonly secret?: SecretSource;
  readonly projected?: { readonly sources: readonly { readonly secret?: SecretSource }[] };
  readonly emptyDir?: object;
}

export interface MaterializedPod {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Container port to the port of this machine that stands for it; all on 127.0.0.1. */
  readonly ports: ReadonlyMap<number, number>;
  /** Where the readiness probe goes. */
  readonly readinessURL: string;
}

export interface PodOptions {
  /** `/` of the container. */
  readonly root: string;
  /** The data of a Secret in the pod's namespace, keys to bytes. */
  readonly readSecret: (name: string) => Readonly<Record<string, Uint8Array>> | undefined;
}

/** @throws DemoError DEMO_STEP_FAILED for a Secret that is missing, a volume of another kind, or no readiness probe */
export async function materializePod(
  deployment: DeploymentView,
  options: PodOptions,
): Promise<MaterializedPod> {
  const pod = deployment.spec.template.spec;
  const [container, other] = pod.containers;
  demand(
    container !== undefined && other === undefined,
    `${deployment.metadata.name} has not exactly one container`,
  );
  const mounts = container.volumeMounts ?? [];
  for (const mount of mounts) {
    const volume = pod.volumes?.find((each) => each.name === mount.name);
    demand(
      volume !== undefined,
      `${deployment.metadata.name} mounts ${mount.name}, which is no volume of it`,
    );
    await writeVolume(volume, mount, { ...options, mountPaths: mounts.map((each) => each.mountPath) });
  }
  const ports = await publishPorts(container);
  const adapt = (text: string): string =>
    publish(
      relocate(
        text,
        mounts.map((each) => each.mountPath),
        options.root,
      ),
      ports,
    );
  return {
    args: (container.args ?? []).map(adapt),
    env: Object.fromEntries(
      (container.env ?? []).flatMap(({ name, value }) => (value === undefined ? [] : [[name, adapt(value)]])),
    ),
    ports,
    readinessURL: readinessURLOf(container, ports),
  };
}

async function writeVolume(
  volume: VolumeView,
  mount: { readonly mountPath: string },
  options: PodOptions & { readonly mountPaths: readonly string[] },
): Promise<void> {
  const target = join(options.root, mount.mountPath);
  await mkdir(target, { recursive: true });
  if (volume.emptyDir !== undefined) return;
  const sources = volume.projected?.sources.map((source) => source.secret) ?? [volume.secret];
  for (const source of sources) {
    demand(source !== undefined, `volume ${volume.name} is neither a Secret nor an empty folder`);
    await writeSecret(source, target, options);
  }
}

async function writeSecret(
  source: SecretSource,
  target: string,
  options: PodOptions & { readonly mountPaths: readonly string[] },
): Promise<void> {
  const name = source.secretName ?? source.name ?? "";
  const data = options.readSecret(name);
  demand(data !== undefined, `Secret ${name} is missing`);
  const items = source.items ?? Object.keys(data).map((key) => ({ key, path: key }));
  for (const { key, path } of items) {
    const value = data[key];
    demand(value !== undefined, `Secret ${name} has no ${key}`);
    demand(!normalize(path).startsWith(".."), `Secret ${name} is mounted outside of its volume`);
    // A kubeconfig names the file of its token.
    const bytes =
      key === "kubeconfig"
        ? relocate(Buffer.from(value).toString("utf8"), options.mountPaths, options.root)
        : value;
    await mkdir(dirname(join(target, path)), { recursive: true });
    await writeFile(join(target, path), bytes, { mode: 0o600 });
  }
}

function relocate(text: string, mountPaths: readonly string[], root: string): string {
  // Longest first: a mount below another one must not be moved twice.
  const [first, ...rest] = mountPaths.toSorted((left, right) => right.length - left.length);
  if (first === undefined) return text;
  return text
    .split(first)
    .map((piece) => relocate(piece, rest, root))
    .join(join(root, first));
}

async function publishPorts(container: ContainerView): Promise<ReadonlyMap<number, number>> {
  const listening = new Set((container.ports ?? []).map((port) => port.containerPort));
  for (const arg of container.args ?? []) {
    const port = LISTEN_FLAG.exec(arg)?.[2];
    if (port !== undefined) listening.add(Number(port));
  }
  const published = new Map<number, number>();
  for (const port of listening) published.set(port, await anyFree(["127.0.0.1"]));
  return published;
}

const LISTEN_FLAG = /^(--[a-z-]+=):([0-9]+)$/;

function publish(text: string, ports: ReadonlyMap<number, number>): string {
  const [, flag = "", port = ""] = LISTEN_FLAG.exec(text) ?? [];
  const published = ports.get(Number(port));
  return published === undefined ? text : `${flag}127.0.0.1:${published}`;
}

function readinessURLOf(container: ContainerView, ports: ReadonlyMap<number, number>): string {
  const probe = container.readinessProbe?.httpGet;
  demand(probe !== undefined, `container ${container.name} has no readiness probe over HTTP`);
  const number =
    typeof probe.port === "number"
      ? probe.port
      : container.ports?.find((port) => port.name === probe.port)?.containerPort;
  const published = ports.get(number ?? 0);
  demand(
    published !== undefined,
    `the readiness probe of ${container.name} goes to ${probe.port}, where nothing listens`,
  );
  return `http://127.0.0.1:${published}${probe.path ?? "/"}`;
}
