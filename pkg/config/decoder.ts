// SPDX-License-Identifier: Apache-2.0
import { Ajv, type AnySchemaObject, type ErrorObject } from "ajv";
import { ConfigError, type ConfigProblem } from "./errors.ts";

/**
 * A function that checks a document against a JSON schema, fills in its defaults and returns a frozen copy.
 * Every problem is reported at once with its path below `path`, e.g. `providerConfig.registryPort`.
 *
 * Fields that the schema does not know are problems, or left out: in what another version of a program wrote they are no mistake.
 *
 * @throws ConfigError CONFIG_INVALID (from the returned function)
 */
export function createDecoder<T>(
  schema: AnySchemaObject,
  options: { readonly unknownFields?: "refuse" | "leave out" } = {},
): (document: unknown, path: string) => T {
  const removeAdditional = options.unknownFields === "leave out";
  const validate = new Ajv({ strict: true, allErrors: true, useDefaults: true, removeAdditional }).compile(
    schema,
  );
  return (document, path) => {
    const copy: unknown = structuredClone(document);
    if (validate(copy)) return Object.freeze(copy) as T;
    throw new ConfigError({
      code: "CONFIG_INVALID",
      problems: (validate.errors ?? []).map((error) => describe(error, path)),
    });
  };
}

function describe(error: ErrorObject, path: string): ConfigProblem {
  const at = `${path}${error.instancePath.replaceAll("/", ".")}`;
  if (error.keyword === "additionalProperties") {
    return { path: `${at}.${String(error.params["additionalProperty"])}`, message: "is not a known field" };
  }
  return { path: at, message: error.message ?? error.keyword };
}
