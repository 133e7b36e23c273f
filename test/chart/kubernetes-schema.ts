// SPDX-License-Identifier: Apache-2.0
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Ajv, type AnySchemaObject, type ValidateFunction } from "ajv";
import { KUBERNETES_VERSION, type KubernetesObject, moduleFolder } from "./helm.ts";

/** Problems of an object against the schema of its kind, with their paths. Unknown fields are problems. */
export type JudgeObject = (object: KubernetesObject) => readonly string[];

interface Definition {
  readonly properties?: Readonly<Record<string, AnySchemaObject>>;
  readonly additionalProperties?: unknown;
  readonly "x-kubernetes-group-version-kind"?: readonly {
    readonly group: string;
    readonly version: string;
    readonly kind: string;
  }[];
}

// Written as one type in the document, although the API server takes two.
const LOOSE: Readonly<Record<string, AnySchemaObject>> = {
  "io.k8s.apimachinery.pkg.util.intstr.IntOrString": { type: ["string", "integer"] },
  "io.k8s.apimachinery.pkg.api.resource.Quantity": { type: ["string", "number"] },
};

/**
 * Judges objects by the OpenAPI document of the API server, from its Go module, and by `custom` for kinds of others.
 *
 * @param custom schemas by `apiVersion/kind`
 */
export async function openKubernetesSchemas(
  custom: Readonly<Record<string, AnySchemaObject>>,
): Promise<JudgeObject> {
  const folder = await moduleFolder(`k8s.io/kubernetes@${KUBERNETES_VERSION}`);
  const document = JSON.parse(await readFile(join(folder, "api/openapi-spec/swagger.json"), "utf8")) as {
    readonly definitions: Readonly<Record<string, Definition>>;
  };
  const names = new Map<string, string>();
  const definitions: Record<string, AnySchemaObject> = {};
  for (const [name, definition] of Object.entries(document.definitions)) {
    definitions[name] = LOOSE[name] ?? close(definition);
    const [kind, ...others] = definition["x-kubernetes-group-version-kind"] ?? [];
    if (kind === undefined || others.length > 0) continue;
    names.set(`${kind.group === "" ? "" : `${kind.group}/`}${kind.version}/${kind.kind}`, name);
  }
  const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
  ajv.addSchema({ $id: "kubernetes", definitions });
  const compiled = new Map<string, ValidateFunction>();
  return (object) => {
    const kind = `${object.apiVersion}/${object.kind}`;
    const name = names.get(kind);
    const schema = name === undefined ? custom[kind] : { $ref: `kubernetes#/definitions/${name}` };
    if (schema === undefined) return [`${kind} is no kind of Kubernetes ${KUBERNETES_VERSION}`];
    const validate = compiled.get(kind) ?? ajv.compile(schema);
    compiled.set(kind, validate);
    if (validate(object)) return [];
    return (validate.errors ?? []).map(
      ({ instancePath, message, params }) =>
        `${kind} ${object.metadata.name}${instancePath}: ${message} ${JSON.stringify(params)}`,
    );
  };
}

/** The API server drops or refuses unknown fields; a chart that has one is wrong. */
function close(definition: Definition): AnySchemaObject {
  return definition.properties === undefined || definition.additionalProperties !== undefined
    ? definition
    : { ...definition, additionalProperties: false };
}
