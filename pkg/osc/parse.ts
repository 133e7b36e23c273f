// SPDX-License-Identifier: Apache-2.0
import type { OperatingSystemConfig } from "#api/gardener";
import { OSCError } from "./errors.ts";

type Raw = Readonly<Record<string, unknown>>;

/**
 * Why an object is none of our business, or undefined. Judged before anything else is looked at, so that an
 * object on its way out is never held up by a fault in it.
 */
export function skipForeign(object: unknown): string | undefined {
  const { metadata, spec } = readObject(object, "object");
  const deletionTimestamp = isObject(metadata) ? metadata["deletionTimestamp"] : undefined;
  if (deletionTimestamp !== undefined && deletionTimestamp !== null) return "the object is being deleted";
  const { purpose, criConfig } = readObject(spec, "spec");
  if (purpose !== "reconcile") return "its purpose is not reconcile";
  if (criConfig === undefined || criConfig === null) return "the worker pool has no criConfig";
  const { name, containerd } = readObject(criConfig, "spec.criConfig");
  if (name !== "containerd") return "the worker pool does not run containerd";
  // Without the section the node agent leaves containerd alone, and an empty sandboxImage would break every pod.
  if (containerd === undefined || containerd === null)
    return "the worker pool has no containerd configuration";
  return undefined;
}

/**
 * The object itself, once every field that the additions read or change has the right type. Fields beyond
 * those are not judged: that is left to the API server.
 *
 * @throws OSCError OSC_OBJECT_INVALID naming the field
 */
export function parseOSC(object: unknown): OperatingSystemConfig {
  const spec = readObject(readObject(object, "object")["spec"], "spec");
  const containerd = readObject(
    readObject(spec["criConfig"], "spec.criConfig")["containerd"],
    "spec.criConfig.containerd",
  );
  readEntries(spec["files"], "spec.files", (file, path) => readString(file["path"], `${path}.path`));
  readEntries(spec["units"], "spec.units", (unit, path) => {
    readString(unit["name"], `${path}.name`);
    if (unit["content"] !== undefined) readString(unit["content"], `${path}.content`);
  });
  const registries = "spec.criConfig.containerd.registries";
  readEntries(containerd["registries"], registries, (registry, path) => {
    readString(registry["upstream"], `${path}.upstream`);
    readEntries(registry["hosts"], `${path}.hosts`, (host, hostPath) => {
      readString(host["url"], `${hostPath}.url`);
      readStrings(host["capabilities"] ?? [], `${hostPath}.capabilities`);
    });
  });
  readEntries(containerd["plugins"], "spec.criConfig.containerd.plugins", (plugin, path) => {
    readStrings(plugin["path"], `${path}.path`);
  });
  return object as OperatingSystemConfig;
}

function readEntries(value: unknown, path: string, judge: (entry: Raw, path: string) => void): void {
  if (value === undefined || value === null) return;
  if (!Array.isArray(value)) throw invalid(path, "a list");
  for (const [index, entry] of value.entries()) {
    judge(readObject(entry, `${path}[${index}]`), `${path}[${index}]`);
  }
}

function readStrings(value: unknown, path: string): void {
  if (!Array.isArray(value)) throw invalid(path, "a list");
  for (const [index, entry] of value.entries()) readString(entry, `${path}[${index}]`);
}

function readString(value: unknown, path: string): void {
  if (typeof value !== "string") throw invalid(path, "a string");
}

function readObject(value: unknown, path: string): Raw {
  if (!isObject(value)) throw invalid(path, "an object");
  return value;
}

function isObject(value: unknown): value is Raw {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function invalid(path: string, expected: string): OSCError {
  return new OSCError({ code: "OSC_OBJECT_INVALID", message: `${path} is not ${expected}` });
}
