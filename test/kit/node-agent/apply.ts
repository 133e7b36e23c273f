// SPDX-License-Identifier: Apache-2.0
import { chmod, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { CRIConfig, File, OperatingSystemConfig, RegistryConfig, Unit } from "#api/gardener";
import { systemErrorCode } from "#errors";
import { patchContainerdConfig } from "./containerd-config.ts";
import { renderHostsToml } from "./hosts-toml.ts";

export interface NodeOptions {
  /** The node's file system; every path of the object lies below it. */
  readonly root: string;
  /** The data of a Secret in the Shoot's namespace, as bytes or text; undefined when there is none. */
  readonly resolveSecret: (
    name: string,
  ) => Promise<Readonly<Record<string, Uint8Array | string>> | undefined>;
  readonly extractImageFile: (image: string, filePathInImage: string) => Promise<Uint8Array>;
  /** True when a registry host answers; without it every host does. */
  readonly probe?: (url: string) => Promise<boolean>;
  /** The node's name; files for another host are left out. */
  readonly hostName?: string;
  /** config.toml when the node has none yet; default `version = 2`. */
  readonly defaultContainerdConfig?: string;
}

/** What one application did. All lists are in the order of the object, removals in that of the last one. */
export interface Applied {
  readonly changedFiles: readonly string[];
  readonly removedFiles: readonly string[];
  /** Units that systemd would restart. */
  readonly restartedUnits: readonly string[];
  /** Units that systemd would stop: `command: stop`, `enable: false`, or gone. */
  readonly stoppedUnits: readonly string[];
  /** Upstreams whose hosts.toml was written. */
  readonly changedRegistries: readonly string[];
  readonly removedRegistries: readonly string[];
  readonly restartsContainerd: boolean;
}

/** What the node remembers of the last application. */
interface LastApplied {
  readonly files: readonly File[];
  readonly units: readonly Unit[];
  readonly criConfig: CRIConfig | null;
}

const LAST_APPLIED = "/var/lib/gardener-node-agent/last-applied-osc.json";
const CONTAINERD_CONFIG = "/etc/containerd/config.toml";
const CERTS_DIRECTORY = "/etc/containerd/certs.d";
const UNIT_DIRECTORY = "/etc/systemd/system";

/**
 * Puts an OperatingSystemConfig on a node: gardenlet's resolution of Secrets, then the gardener-node-agent's
 * steps in its order. An image that cannot be read ends the run before any unit is touched, and a registry that
 * does not answer its probe ends it before anything is removed or remembered, as on a real node.
 */
export async function applyOSC(osc: OperatingSystemConfig, options: NodeOptions): Promise<Applied> {
  const { root } = options;
  const next = await resolve(osc, options);
  const last = await readLastApplied(root);
  const containerd = next.criConfig?.containerd;
  if (next.criConfig && containerd) await patchConfig(next.criConfig, options);

  const changed = next.files.filter((file) => !last?.files.some((other) => isDeepStrictEqual(other, file)));
  for (const file of changed.filter((each) => !each.content.imageRef)) await writeInline(root, file);

  const registries = containerd?.registries ?? [];
  const oldRegistries = last?.criConfig?.containerd?.registries ?? [];
  const changedRegistries = registries.filter(
    (entry) => !oldRegistries.some((other) => isDeepStrictEqual(other, entry)),
  );
  for (const entry of changedRegistries.filter((each) => !each.readinessProbe))
    await writeRegistry(root, entry);

  for (const file of changed) {
    const { imageRef } = file.content;
    if (!imageRef) continue;
    const bytes = await options.extractImageFile(imageRef.image, imageRef.filePathInImage);
    await writeNodeFile(root, file.path, bytes, file.permissions ?? 0o600);
  }

  const changedPaths = new Set(changed.map((file) => file.path));
  const changedUnits = next.units.filter(
    (unit) =>
      !last?.units.some((other) => isDeepStrictEqual(other, unit)) ||
      unit.filePaths?.some((path) => changedPaths.has(path)),
  );
  for (const unit of changedUnits) await writeUnit(root, unit);
  const removedUnits = (last?.units ?? []).filter(
    (old) => !next.units.some((unit) => unit.name === old.name),
  );
  for (const unit of removedUnits) await removeUnit(root, unit);

  for (const entry of changedRegistries.filter((each) => each.readinessProbe)) {
    await mkdir(registryDirectory(root, entry), { recursive: true });
    await awaitHosts(entry, options);
    await writeRegistry(root, entry);
  }
  const removedRegistries = oldRegistries.filter(
    (old) => !registries.some((entry) => entry.upstream === old.upstream),
  );
  for (const entry of removedRegistries) {
    await rm(registryDirectory(root, entry), { recursive: true, force: true });
  }
  const removedFiles = (last?.files ?? []).filter(
    (old) => !next.files.some((file) => file.path === old.path),
  );
  for (const file of removedFiles) await rm(join(root, file.path), { force: true });

  await writeNodeFile(root, LAST_APPLIED, JSON.stringify(next), 0o600);
  return {
    changedFiles: changed.map((file) => file.path),
    removedFiles: removedFiles.map((file) => file.path),
    restartedUnits: changedUnits.filter((unit) => !isStopped(unit)).map((unit) => unit.name),
    stoppedUnits: [...changedUnits.filter(isStopped), ...removedUnits].map((unit) => unit.name),
    changedRegistries: changedRegistries.map((entry) => entry.upstream),
    removedRegistries: removedRegistries.map((entry) => entry.upstream),
    restartsContainerd: needsContainerdRestart(last, next),
  };
}

/** The object as it travels to the node: Secrets as inline data, so that their content is part of every comparison. */
async function resolve(osc: OperatingSystemConfig, options: NodeOptions): Promise<LastApplied> {
  const files: File[] = [];
  for (const file of osc.spec.files ?? []) {
    if (file.hostName && file.hostName !== options.hostName) continue;
    const { secretRef } = file.content;
    if (!secretRef) {
      files.push(file);
      continue;
    }
    const value = (await options.resolveSecret(secretRef.name))?.[secretRef.dataKey];
    if (value === undefined) throw new Error(`secret ${secretRef.name} has no ${secretRef.dataKey}`);
    const data = Buffer.from(value).toString("base64");
    files.push({ ...file, content: { inline: { encoding: "b64", data } } });
  }
  // Through JSON, so that it compares equal with what is read back.
  const travelling = { files, units: osc.spec.units ?? [], criConfig: osc.spec.criConfig ?? null };
  return JSON.parse(JSON.stringify(travelling)) as LastApplied;
}

/** containerd restarts for its own settings, never for registries. The order of plugins counts. */
function needsContainerdRestart(last: LastApplied | undefined, next: LastApplied): boolean {
  const settings = (applied: LastApplied | undefined): unknown => [
    applied?.criConfig?.containerd?.sandboxImage,
    applied?.criConfig?.containerd?.plugins ?? [],
    applied?.criConfig?.cgroupDriver,
  ];
  return last === undefined || !isDeepStrictEqual(settings(last), settings(next));
}

function isStopped(unit: Unit): boolean {
  return unit.command === "stop" || unit.enable === false;
}

async function awaitHosts(entry: RegistryConfig, { probe }: NodeOptions): Promise<void> {
  for (const host of entry.hosts ?? []) {
    if (probe && !(await probe(host.url)))
      throw new Error(`registry ${entry.upstream}: ${host.url} does not answer`);
  }
}

async function patchConfig(criConfig: CRIConfig, options: NodeOptions): Promise<void> {
  const old = await readText(options.root, CONTAINERD_CONFIG);
  const text = old ?? options.defaultContainerdConfig ?? "version = 2\n";
  if (!criConfig.containerd) return;
  const patched = patchContainerdConfig(text, criConfig, criConfig.containerd);
  if (patched !== old) await writeNodeFile(options.root, CONTAINERD_CONFIG, patched, 0o644);
}

async function writeInline(root: string, file: File): Promise<void> {
  const { inline } = file.content;
  if (!inline) throw new Error(`${file.path} has no content`);
  const bytes = Buffer.from(inline.data, inline.encoding === "b64" ? "base64" : "utf8");
  await writeNodeFile(root, file.path, bytes, file.permissions ?? 0o600);
}

async function writeRegistry(root: string, entry: RegistryConfig): Promise<void> {
  await writeNodeFile(root, `${CERTS_DIRECTORY}/${entry.upstream}/hosts.toml`, renderHostsToml(entry), 0o644);
}

function registryDirectory(root: string, entry: RegistryConfig): string {
  return join(root, CERTS_DIRECTORY, entry.upstream);
}

async function writeUnit(root: string, unit: Unit): Promise<void> {
  const path = `${UNIT_DIRECTORY}/${unit.name}`;
  if (unit.content) await writeNodeFile(root, path, unit.content, 0o600);
  await rm(join(root, `${path}.d`), { recursive: true, force: true });
  for (const dropIn of unit.dropIns ?? [])
    await writeNodeFile(root, `${path}.d/${dropIn.name}`, dropIn.content, 0o600);
}

async function removeUnit(root: string, unit: Unit): Promise<void> {
  const path = join(root, UNIT_DIRECTORY, unit.name);
  await rm(path, { force: true });
  await rm(`${path}.d`, { recursive: true, force: true });
}

async function writeNodeFile(
  root: string,
  path: string,
  data: Uint8Array | string,
  mode: number,
): Promise<void> {
  const target = join(root, path);
  await mkdir(dirname(target), { recursive: true, mode: 0o755 });
  await writeFile(`${target}.partial`, data);
  await chmod(`${target}.partial`, mode);
  await rename(`${target}.partial`, target);
}

async function readLastApplied(root: string): Promise<LastApplied | undefined> {
  const text = await readText(root, LAST_APPLIED);
  return text === undefined ? undefined : (JSON.parse(text) as LastApplied);
}

async function readText(root: string, path: string): Promise<string | undefined> {
  try {
    return await readFile(join(root, path), "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}
