// SPDX-License-Identifier: Apache-2.0
import { AdmissionError } from "./errors.ts";

/** The part of a Shoot (core.gardener.cloud) that is judged. */
export interface Shoot {
  readonly isDeleting: boolean;
  /** The entry of type `registry-spegel` in `spec.extensions`, unless it is absent or disabled. */
  readonly extension: EnabledExtension | undefined;
  /** Empty for a Shoot without workers. */
  readonly workers: readonly Worker[];
}

export interface EnabledExtension {
  /** Of its providerConfig, for messages. */
  readonly path: string;
  /** Raw JSON; absent and null are the normal case. */
  readonly providerConfig: unknown;
}

export interface Worker {
  /** For messages: `spec.provider.workers[0]`. */
  readonly path: string;
  /** As it stands there; the API server has made sure that it is a name. */
  readonly name: unknown;
  /** `cri.name`; undefined when the API server may default it. */
  readonly runtime: string | undefined;
}

const TYPE = "registry-spegel";
const GROUP = "core.gardener.cloud/";

type Fields = Readonly<Record<string, unknown>>;

/**
 * Reads raw JSON. Every field may be absent or null, as for the API server.
 * @throws AdmissionError ADMISSION_OBJECT_INVALID, naming the field that has another type
 */
export function readShoot(raw: unknown): Shoot {
  if (!isFields(raw)) throw invalid("the object is not a Shoot");
  const { apiVersion, kind } = raw;
  if (kind !== "Shoot" || typeof apiVersion !== "string" || !apiVersion.startsWith(GROUP)) {
    throw invalid("the object is not a Shoot of core.gardener.cloud");
  }
  const spec = fields(raw["spec"], "spec");
  const workers = list(fields(spec["provider"], "spec.provider")["workers"], "spec.provider.workers");
  return {
    isDeleting: fields(raw["metadata"], "metadata")["deletionTimestamp"] != null,
    extension: findExtension(list(spec["extensions"], "spec.extensions")),
    workers: workers.map((worker, index) => readWorker(worker, `spec.provider.workers[${index}]`)),
  };
}

function findExtension(entries: readonly unknown[]): EnabledExtension | undefined {
  for (const [index, raw] of entries.entries()) {
    const { type, disabled, providerConfig } = fields(raw, `spec.extensions[${index}]`);
    if (type === TYPE && disabled !== true) {
      return { path: `spec.extensions[${index}].providerConfig`, providerConfig };
    }
  }
  return undefined;
}

function readWorker(raw: unknown, path: string): Worker {
  const worker = fields(raw, path);
  const { name: runtime } = fields(worker["cri"], `${path}.cri`);
  if (runtime !== undefined && runtime !== null && typeof runtime !== "string") {
    throw invalid(`${path}.cri.name is not a string`);
  }
  return { path, name: worker["name"], runtime: runtime ?? undefined };
}

function fields(value: unknown, path: string): Fields {
  if (value === undefined || value === null) return {};
  if (!isFields(value)) throw invalid(`${path} is not an object`);
  return value;
}

function list(value: unknown, path: string): readonly unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw invalid(`${path} is not a list`);
  return value;
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function invalid(message: string): AdmissionError {
  return new AdmissionError({ code: "ADMISSION_OBJECT_INVALID", message });
}
