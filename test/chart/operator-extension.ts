// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync } from "node:fs";
import type { AnySchemaObject } from "ajv";
import { parse } from "yaml";

const string = { type: "string" } as const;
const closed = (
  properties: Record<string, AnySchemaObject>,
  required: readonly string[] = [],
): AnySchemaObject => ({
  type: "object",
  properties,
  required,
  additionalProperties: false,
});
const clusters = { type: "array", items: { enum: ["shoot", "seed", "garden"] }, uniqueItems: true } as const;
const helm = closed(
  { ociRepository: closed({ ref: string, repository: string, tag: string, digest: string }) },
  ["ociRepository"],
);

/** Extension of operator.gardener.cloud/v1alpha1: what the example uses, closed, after Gardener's API. */
const OPERATOR_EXTENSION: AnySchemaObject = closed(
  {
    apiVersion: { const: "operator.gardener.cloud/v1alpha1" },
    kind: { const: "Extension" },
    metadata: closed({ name: string, annotations: { type: "object", additionalProperties: string } }, [
      "name",
    ]),
    spec: closed({
      resources: {
        type: "array",
        items: closed(
          {
            kind: string,
            type: string,
            autoEnable: clusters,
            clusterCompatibility: clusters,
            lifecycle: closed({
              reconcile: { enum: ["BeforeKubeAPIServer", "AfterKubeAPIServer", "AfterWorker"] },
              delete: { enum: ["BeforeKubeAPIServer", "AfterKubeAPIServer"] },
              migrate: { enum: ["BeforeKubeAPIServer", "AfterKubeAPIServer"] },
            }),
            reconcileTimeout: { type: "string", pattern: "^([0-9]+(s|m|h))+$" },
            primary: { type: "boolean" },
            workerlessSupported: { type: "boolean" },
          },
          ["kind", "type"],
        ),
      },
      deployment: closed({
        extension: closed({ helm, values: { type: "object" }, policy: string }),
        admission: closed({
          runtimeCluster: closed({ helm }, ["helm"]),
          virtualCluster: closed({ helm }, ["helm"]),
          values: { type: "object" },
        }),
      }),
    }),
  },
  ["apiVersion", "kind", "metadata", "spec"],
);

const GARDENERS = new URL("../../../shared/crds/operator.gardener.cloud_extensions.yaml", import.meta.url);

/** The schemas to judge by: ours, and that of Gardener's own definition where it lies beside the repository. */
export function operatorExtensionSchemas(): AnySchemaObject[] {
  if (!existsSync(GARDENERS)) return [OPERATOR_EXTENSION];
  const definition = parse(readFileSync(GARDENERS, "utf8")) as {
    readonly spec: {
      readonly versions: readonly [{ readonly schema: { openAPIV3Schema: AnySchemaObject } }];
    };
  };
  return [OPERATOR_EXTENSION, close(definition.spec.versions[0].schema.openAPIV3Schema)];
}

/** The API server drops unknown fields, a structural schema just ignores them: here they are errors. */
function close(schema: AnySchemaObject): AnySchemaObject {
  const { properties, items } = schema as {
    readonly properties?: Readonly<Record<string, AnySchemaObject>>;
    readonly items?: AnySchemaObject;
  };
  return {
    ...schema,
    ...(items && { items: close(items) }),
    ...(properties && {
      properties: Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, close(value)])),
      additionalProperties: false,
    }),
  };
}
