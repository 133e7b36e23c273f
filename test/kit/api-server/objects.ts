// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import { parseAllDocuments } from "yaml";
import type { ApiObjectInit } from "./start.ts";

/** The objects of a YAML file, in their order. */
export async function readManifests(file: string | URL): Promise<ApiObjectInit[]> {
  const documents = parseAllDocuments(await readFile(file, "utf8"));
  return documents.map((document) => document.toJS() as ApiObjectInit);
}

/**
 * What lies at a path of an object: `spec.template.spec.containers.0.args`. A test says what type it expects there.
 * @throws Error naming the path when nothing is there
 */
export function valueAt<T = unknown>(object: object | undefined, path: string): T {
  let value: unknown = object;
  for (const part of path.split(".")) {
    value =
      typeof value === "object" && value !== null ? (value as Record<string, unknown>)[part] : undefined;
  }
  if (value === undefined) throw new Error(`nothing at ${path}`);
  return value as T;
}
