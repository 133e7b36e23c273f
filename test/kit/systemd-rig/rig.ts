// SPDX-License-Identifier: Apache-2.0
import { access, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { OperatingSystemConfig } from "#api/gardener";
import { sleep } from "#async";
import { type Applied, applyOSC, validateOSC } from "#kit/node-agent";
import {
  CONTAINERD_CONTENT_PATH,
  CONTAINERD_SOCKET,
  SPEGEL_BINARY_PATH_IN_IMAGE,
  SPEGEL_LIBRARIES,
  TEXTFILE_DIRECTORY,
  TEXTFILE_NAME,
} from "#nodelayout";
import { type Digest, sha256Digest } from "#oci";
import type { OSCOptions } from "#osc";
import { createKeyPair, issueAuthority, issueLeaf } from "#pki";
import { type ContentOrigin, openOCILayoutStore } from "#store";
import { type ImageLayout, type ImageSpecification, makeImage } from "../image-maker/index.ts";
import { createCRI, enterNamespace, openNetwork, type RigNetwork, UPSTREAM } from "../node-rig/index.ts";
import { type RunningProcess, startProcess } from "../process/index.ts";
import { type Registry, startRegistry } from "../registry/index.ts";
import { bootMachine, type SystemdMachine } from "./machine.ts";
import { CA_SECRET, CLIENT_SECRET, plainConfiguration, spegelConfiguration } from "./node-configuration.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
/** What the node image has; `dist/` has the same files at the same places. */
const FILES_OF_IMAGE = [
  SPEGEL_BINARY_PATH_IN_IMAGE,
  ...SPEGEL_LIBRARIES.map(({ pathInImage }) => pathInImage),
];
const NODE_IMAGE = "registry.example.test/spegel@sha256:0";
const BOOTSTRAPPER = "bootstrapper.example.test";
const BOOTSTRAPPER_PORT = 8443;
const REGISTRY_PORT = 5000;
const ROUTER_PORT = 5001;
const METRICS_PORT = 9090;
const READY_TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 20;
const DAY_MS = 24 * 3_600_000;

/** An image that the upstream registry has, and the neighbour when it was asked to. */
export interface SharedImage {
  /** `registry.example.test/repository:tag` */
  readonly name: string;
  readonly layout: ImageLayout;
}

/** One Shoot node under a real systemd, beside an upstream registry, a bootstrapper and another node of the swarm. */
export interface SystemdRig extends AsyncDisposable {
  readonly network: RigNetwork;
  readonly machine: SystemdMachine;
  readonly registry: Registry;
  /** The address of the machine. */
  readonly address: string;
  /** Starts the bootstrapper at the address that the machine knows; until then that address refuses. */
  startBootstrapper(nodes: readonly string[]): Promise<RunningProcess>;
  /** Starts another `spegel registry`, at the upstream's address, that serves what `addImage` gives it. */
  startNeighbour(): Promise<RunningProcess>;
  /** Plays the node agent: writes the configuration, reloads systemd, runs the unit commands in parallel. */
  apply(configuration: OperatingSystemConfig): Promise<Applied>;
  /** Changes a unit beside its own file, and restarts it. */
  addDropIn(unit: string, text: string): Promise<void>;
  /** The configuration of the machine, with spegel in it. */
  spegelConfiguration(options?: Partial<OSCOptions>): OperatingSystemConfig;
  plainConfiguration(): OperatingSystemConfig;
  addImage(
    repository: string,
    specification: ImageSpecification,
    options?: { readonly withNeighbour?: boolean },
  ): Promise<SharedImage>;
  /** Gives the neighbour content; it becomes findable by itself. */
  addNeighbourContent(bytes: Uint8Array, origin: ContentOrigin): Promise<Digest>;
  /** Status of a HEAD of the machine's registry; undefined while nothing answers. */
  headStatus(path: string): Promise<number | undefined>;
  /** Pulls on the machine as the kubelet does. */
  pull(image: string): Promise<void>;
  /** Status of a GET of the machine's registry; undefined while nothing answers. */
  status(path: string): Promise<number | undefined>;
  /** Resolves when `/readyz` of the machine answers 200. */
  untilReady(): Promise<void>;
  untilStatus(path: string, status: number): Promise<void>;
  /** The daemon's metrics as it gives them on the machine's loopback. */
  metrics(): Promise<string>;
  /** What node-exporter would read; undefined when the file is absent. */
  textfile(): Promise<string | undefined>;
  /** Path of containerd's socket for this process. */
  containerdSocket(): string;
}

export interface SystemdRigOptions {
  /** Files on the machine before its first boot, besides those that the rig needs. */
  readonly files?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/**
 * Opens a rig; needs root and dist/. This process is inside the upstream's network until the rig is disposed.
 *
 * The machine is booted and has containerd; `apply` puts spegel on it.
 */
export async function openSystemdRig(options: SystemdRigOptions): Promise<SystemdRig> {
  const { signal } = options;
  await access(join(ROOT, "dist/spegel")).catch(() => {
    throw new Error("dist/spegel is missing: run make build");
  });
  await using opening = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "systemd-rig-"));
  opening.defer(() => rm(directory, { recursive: true, force: true }));
  const network = opening.use(await openNetwork({ nodes: 1 }));
  opening.use(await enterNamespace(network.upstream));
  const [namespace] = network.nodes;
  if (namespace === undefined) throw new Error("the network has no node");
  const { address } = namespace;

  const certificates = await issueCertificates(network.upstream.address);
  const registry = opening.use(
    await startRegistry({ address: network.upstream.address, port: 443, tls: certificates.upstream, signal }),
  );
  const machine = opening.use(
    await bootMachine({
      namespace,
      files: {
        "/etc/hosts": `127.0.0.1 localhost\n::1 localhost\n${network.upstream.address} ${UPSTREAM} ${BOOTSTRAPPER}\n`,
        "/etc/resolv.conf": "",
        "/etc/environment": "",
        ...options.files,
      },
      // Page cache must be what it is on a node; containerd's database is quicker in memory.
      onDisk: [
        "/opt/bin",
        CONTAINERD_CONTENT_PATH,
        "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs",
      ],
      signal,
    }),
  );
  await machine.demand("systemctl", "enable", "--quiet", "containerd.service");

  const neighbourStore = join(directory, "neighbour");
  const started = opening.use(new AsyncDisposableStack());
  let images = 0;

  async function status(path: string, method = "GET", timeoutMs = 5_000): Promise<number | undefined> {
    try {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
      const response = await fetch(`http://${address}:${REGISTRY_PORT}${path}`, { method, signal: limit });
      await response.body?.cancel();
      return response.status;
    } catch {
      signal.throwIfAborted();
      return undefined;
    }
  }

  async function untilStatus(path: string, wanted: number): Promise<void> {
    const deadline = performance.now() + READY_TIMEOUT_MS;
    for (;;) {
      const last = await status(path);
      if (last === wanted) return;
      if (performance.now() > deadline)
        throw new Error(
          `${path} answers ${last} after ${READY_TIMEOUT_MS} ms:\n${await machine.journal("spegel.service")}`,
        );
      await sleep(POLL_INTERVAL_MS, { signal });
    }
  }

  const opened = opening.move();
  return {
    network,
    machine,
    registry,
    address,
    status: (path) => status(path),
    headStatus: (path) => status(path, "HEAD"),
    untilStatus,
    untilReady: () => untilStatus("/readyz", 200),
    plainConfiguration: () => plainConfiguration(certificates.authorityPem),
    spegelConfiguration: (more = {}) =>
      spegelConfiguration({
        bootstrapURL: `https://${BOOTSTRAPPER}:${BOOTSTRAPPER_PORT}/bootstrap-nodes`,
        authorityPem: certificates.authorityPem,
        options: { image: NODE_IMAGE, ...more },
      }),

    async startBootstrapper(nodes) {
      const folder = join(directory, "bootstrapper");
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, "ca.crt"), certificates.authorityPem);
      await writeFile(join(folder, "tls.crt"), certificates.bootstrapper.certificate);
      await writeFile(join(folder, "tls.key"), certificates.bootstrapper.key);
      await writeFile(join(folder, "nodes.json"), JSON.stringify(nodes));
      const at = (port: number): string => `${network.upstream.address}:${port}`;
      return started.use(
        await startProcess({
          name: "bootstrapper",
          command: join(ROOT, "dist/registry-spegel-bootstrapper"),
          args: [
            `--certificate-directory=${folder}`,
            `--nodes-file=${join(folder, "nodes.json")}`,
            `--listen-address=${at(BOOTSTRAPPER_PORT)}`,
            `--health-address=${at(8081)}`,
            `--metrics-address=${at(8080)}`,
          ],
          ready: { kind: "http", url: `http://${at(8081)}/readyz` },
          readyTimeoutMs: READY_TIMEOUT_MS,
          signal,
        }),
      );
    },

    async startNeighbour() {
      const own = network.upstream.address;
      return started.use(
        await startProcess({
          name: "spegel on another node",
          command: join(ROOT, "dist/spegel"),
          args: [
            "registry",
            `--store=oci-layout:${neighbourStore}`,
            `--registry-addr=${own}:${REGISTRY_PORT}`,
            `--router-addr=${own}:${ROUTER_PORT}`,
            `--metrics-addr=${own}:${METRICS_PORT}`,
            "--bootstrap-kind=static",
          ],
          ready: { kind: "http", url: `http://${own}:${REGISTRY_PORT}/livez` },
          readyTimeoutMs: READY_TIMEOUT_MS,
          signal,
        }),
      );
    },

    async apply(configuration) {
      const problems = validateOSC(configuration);
      if (problems.length > 0) throw new Error(`Gardener would refuse this: ${problems.join("; ")}`);
      const applied = await applyOSC(configuration, {
        root: machine.root,
        resolveSecret: async (name) => certificates.secrets[name],
        extractImageFile: async (_image, path) => {
          if (!FILES_OF_IMAGE.includes(path)) throw new Error(`the image has no ${path}`);
          return readFile(join(ROOT, "dist", path));
        },
        defaultContainerdConfig: await machine.demand("containerd", "config", "default"),
      });
      if (applied.stoppedUnits.length > 0) await machine.demand("systemctl", "stop", ...applied.stoppedUnits);
      const restarted = [
        ...new Set([
          ...(applied.restartsContainerd ? ["containerd.service"] : []),
          ...applied.restartedUnits,
        ]),
      ];
      await machine.demand("systemctl", "daemon-reload");
      if (restarted.length > 0) {
        await machine.demand("systemctl", "enable", "--quiet", ...restarted);
        await machine.demand("systemctl", "restart", ...restarted);
      }
      return applied;
    },

    async addDropIn(unit, text) {
      const folder = join(machine.root, "etc/systemd/system", `${unit}.d`);
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, "rig.conf"), text);
      await machine.demand("systemctl", "daemon-reload");
      await machine.demand("systemctl", "restart", unit);
    },

    async addImage(repository, specification, { withNeighbour = false } = {}) {
      const layout = await makeImage(join(directory, `image-${images++}`), specification, { signal });
      await registry.push(layout, "1", repository, { signal });
      const name = `${UPSTREAM}/${repository}:1`;
      if (withNeighbour) {
        const store = await openOCILayoutStore({ directory: neighbourStore }, { signal });
        const origin = { registry: UPSTREAM, repository };
        for (const { digest } of layout.objects) {
          await store.put(digest, await readFile(layout.blobPath(digest)), { signal, origin });
        }
        await store.tag(name, layout.root.digest, { signal });
      }
      return { name, layout };
    },

    async addNeighbourContent(bytes, origin) {
      const store = await openOCILayoutStore({ directory: neighbourStore }, { signal });
      const digest = sha256Digest(bytes);
      await store.put(digest, bytes, { signal, origin });
      return digest;
    },

    async pull(image) {
      using cri = createCRI(join(machine.root, CONTAINERD_SOCKET));
      await cri.pull(image);
    },

    metrics: () =>
      machine.demand("curl", "-sf", "--max-time", "10", `http://127.0.0.1:${METRICS_PORT}/metrics`),
    textfile: () =>
      readFile(join(machine.root, TEXTFILE_DIRECTORY, TEXTFILE_NAME), "utf8").catch(
        (error: NodeJS.ErrnoException) => {
          if (error.code === "ENOENT") return undefined;
          throw error;
        },
      ),
    containerdSocket: () => join(machine.root, CONTAINERD_SOCKET),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

interface Certificates {
  readonly authorityPem: string;
  readonly upstream: { readonly certificate: string; readonly key: string };
  readonly bootstrapper: { readonly certificate: string; readonly key: string };
  /** In the Shoot's namespace, by name. */
  readonly secrets: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

async function issueCertificates(address: string): Promise<Certificates> {
  const validity = { nowMs: Date.now(), validityMs: DAY_MS };
  const key = await createKeyPair({ bits: 2048 });
  const authority = await issueAuthority({ commonName: "rig authority", key, ...validity });
  const server = (dnsNames: readonly string[]) =>
    issueLeaf(authority, {
      commonName: "server",
      usage: "server",
      dnsNames,
      ipAddresses: [address],
      key,
      ...validity,
    });
  const upstream = await server([UPSTREAM, "registry-1.docker.io"]);
  const bootstrapper = await server([BOOTSTRAPPER]);
  const client = await issueLeaf(authority, { commonName: "node", usage: "client", key, ...validity });
  const files = (leaf: typeof client) => ({ certificate: leaf.certificatePem, key: leaf.privateKeyPem });
  return {
    authorityPem: authority.certificatePem,
    upstream: files(upstream),
    bootstrapper: files(bootstrapper),
    secrets: {
      [CA_SECRET]: { "bundle.crt": authority.certificatePem },
      [CLIENT_SECRET]: { "tls.crt": client.certificatePem, "tls.key": client.privateKeyPem },
    },
  };
}
