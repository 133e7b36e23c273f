// SPDX-License-Identifier: Apache-2.0
import jsonpatch from "fast-json-patch";
import { ApiStatus, badRequest } from "./status.ts";
import type { ApiObject } from "./storage.ts";

/** Applies a patch by its media type. @throws ApiStatus 415, 400 or 422 */
export function applyPatch(object: ApiObject, mediaType: string, patch: unknown): ApiObject {
  if (mediaType === "application/merge-patch+json") return mergePatch(object, patch) as ApiObject;
  if (mediaType === "application/json-patch+json") return jsonPatch(object, patch);
  throw new ApiStatus(
    415,
    "UnsupportedMediaType",
    `the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json`,
  );
}

/** RFC 7386. */
function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return patch;
  const merged: Record<string, unknown> = isRecord(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = mergePatch(merged[key], value);
  }
  return merged;
}

/** RFC 6902. */
export function jsonPatch<T>(target: T, patch: unknown): T {
  if (!Array.isArray(patch)) throw badRequest("a JSON patch must be an array of operations");
  try {
    return jsonpatch.applyPatch(structuredClone(target), patch as jsonpatch.Operation[], true).newDocument;
  } catch (error) {
    throw new ApiStatus(
      422,
      "Invalid",
      `the server rejected our request due to an error in our request: ${error}`,
    );
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
