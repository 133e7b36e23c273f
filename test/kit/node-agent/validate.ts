// SPDX-License-Identifier: Apache-2.0
import type { File, OperatingSystemConfig, RegistryConfig, Unit } from "#api/gardener";

/**
 * What Gardener's validating webhook refuses, as `path: message` lines; empty when the object is accepted.
 *
 * Restates the rules of `ValidateOperatingSystemConfig` for the parts that extensions add. The webhook runs
 * after all mutating ones, so an object that fails here would block the Shoot.
 */
export function validateOSC(osc: OperatingSystemConfig): string[] {
  const { spec } = osc;
  const problems: string[] = [];
  if (!spec.type) problems.push("spec.type: required");
  if (spec.purpose !== "provision" && spec.purpose !== "reconcile")
    problems.push("spec.purpose: unsupported");
  const paths = new Set((spec.files ?? []).map((file) => file.path));
  problems.push(...validateFiles(spec.files ?? []));
  problems.push(
    ...(spec.units ?? []).flatMap((unit, index) => validateUnit(unit, paths, `spec.units[${index}]`)),
  );
  problems.push(...duplicates(spec.units ?? [], (unit) => unit.name, "spec.units", "name"));
  const { criConfig } = spec;
  if (criConfig === undefined || criConfig === null) return problems;
  if (criConfig.name !== "containerd") problems.push("spec.criConfig.name: unsupported");
  if (criConfig.cgroupDriver !== undefined && !["systemd", "cgroupfs"].includes(criConfig.cgroupDriver)) {
    problems.push("spec.criConfig.cgroupDriver: unsupported");
  }
  const { containerd } = criConfig;
  if (containerd === undefined || containerd === null) return problems;
  const at = "spec.criConfig.containerd";
  if (spec.purpose === "provision") problems.push(`${at}: forbidden for purpose provision`);
  if (typeof containerd.sandboxImage !== "string") problems.push(`${at}.sandboxImage: required`);
  const registries = containerd.registries ?? [];
  problems.push(
    ...registries.flatMap((entry, index) => validateRegistry(entry, `${at}.registries[${index}]`)),
  );
  problems.push(...duplicates(registries, (entry) => entry.upstream, `${at}.registries`, "upstream"));
  for (const [index, plugin] of (containerd.plugins ?? []).entries()) {
    const path = `${at}.plugins[${index}]`;
    if (plugin.op !== undefined && !["add", "remove"].includes(plugin.op))
      problems.push(`${path}.op: unsupported`);
    if (plugin.path.length === 0) problems.push(`${path}.path: required`);
    const { values } = plugin;
    const isTable =
      values === undefined || (typeof values === "object" && values !== null && !Array.isArray(values));
    if (!isTable) problems.push(`${path}.values: not a JSON object`);
  }
  return problems;
}

function validateFiles(files: readonly File[]): string[] {
  const problems = files.flatMap((file, index) => {
    const path = `spec.files[${index}]`;
    const found: string[] = [];
    if (!file.path.startsWith("/")) found.push(`${path}.path: not absolute`);
    const { permissions, content } = file;
    if (
      typeof permissions === "number" &&
      (!Number.isInteger(permissions) || permissions < 0 || permissions > 0o7777)
    ) {
      found.push(`${path}.permissions: not a mode`);
    }
    const kinds = [content.inline, content.secretRef, content.imageRef].filter((kind) => kind != null);
    if (kinds.length !== 1) found.push(`${path}.content: exactly one of inline, secretRef, imageRef`);
    const { inline, secretRef, imageRef } = content;
    if (inline && !["", "b64"].includes(inline.encoding))
      found.push(`${path}.content.inline.encoding: unsupported`);
    if (inline && !inline.data) found.push(`${path}.content.inline.data: required`);
    if (secretRef && !(secretRef.name && secretRef.dataKey))
      found.push(`${path}.content.secretRef: incomplete`);
    if (imageRef && !(imageRef.image && imageRef.filePathInImage))
      found.push(`${path}.content.imageRef: incomplete`);
    return found;
  });
  const key = (file: File): string => `${file.path}\0${file.hostName ?? ""}`;
  return [...problems, ...duplicates(files, key, "spec.files", "path")];
}

function validateUnit(unit: Unit, files: ReadonlySet<string>, path: string): string[] {
  const problems: string[] = [];
  if (!unit.name) problems.push(`${path}.name: required`);
  if (unit.command !== undefined && !["start", "restart", "stop"].includes(unit.command)) {
    problems.push(`${path}.command: unsupported`);
  }
  for (const [index, dropIn] of (unit.dropIns ?? []).entries()) {
    if (!dropIn.name) problems.push(`${path}.dropIns[${index}].name: required`);
    if (!dropIn.content) problems.push(`${path}.dropIns[${index}].content: required`);
  }
  for (const [index, file] of (unit.filePaths ?? []).entries()) {
    if (!files.has(file)) problems.push(`${path}.filePaths[${index}]: no file ${file}`);
  }
  return problems;
}

const LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const HOST_PORT = new RegExp(`^${LABEL}(\\.${LABEL})*(:[0-9]{1,5})?$`);

function validateRegistry(entry: RegistryConfig, path: string): string[] {
  const problems: string[] = [];
  if (entry.upstream !== "_default" && !HOST_PORT.test(entry.upstream))
    problems.push(`${path}.upstream: no host[:port]`);
  if (entry.server != null && !isURL(entry.server)) problems.push(`${path}.server: not a URL`);
  for (const [index, host] of (entry.hosts ?? []).entries()) {
    const at = `${path}.hosts[${index}]`;
    if (!isURL(host.url)) problems.push(`${at}.url: not a URL`);
    const capabilities = host.capabilities ?? [];
    if (!capabilities.every((each) => ["pull", "resolve", "push"].includes(each))) {
      problems.push(`${at}.capabilities: unsupported`);
    }
    if (new Set(capabilities).size !== capabilities.length) problems.push(`${at}.capabilities: duplicate`);
    if (!(host.caCerts ?? []).every((file) => file.startsWith("/")))
      problems.push(`${at}.caCerts: not absolute`);
  }
  return [...problems, ...duplicates(entry.hosts ?? [], (host) => host.url, `${path}.hosts`, "url")];
}

function isURL(text: string): boolean {
  const url = URL.parse(text);
  return url !== null && ["http:", "https:"].includes(url.protocol) && url.host !== "";
}

function duplicates<T>(
  list: readonly T[],
  keyOf: (entry: T) => string,
  path: string,
  field: string,
): string[] {
  const seen = new Set<string>();
  return list.flatMap((entry, index) => {
    const key = keyOf(entry);
    if (seen.has(key)) return [`${path}[${index}].${field}: duplicate`];
    seen.add(key);
    return [];
  });
}
