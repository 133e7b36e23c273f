// SPDX-License-Identifier: Apache-2.0
/** What the chart uses of kinds that are not Kubernetes' own, closed, after the definitions of their projects. */
import type { AnySchemaObject } from "ajv";

const string = { type: "string" } as const;
const strings = { type: "array", items: string } as const;
const stringMap = { type: "object", additionalProperties: string } as const;
const quantities = { type: "object", additionalProperties: { type: ["string", "number"] } } as const;

function closed(
  properties: Record<string, AnySchemaObject>,
  required: readonly string[] = [],
): AnySchemaObject {
  return { type: "object", properties, required, additionalProperties: false };
}

function kind(spec: AnySchemaObject): AnySchemaObject {
  const metadata = closed({ name: string, namespace: string, labels: stringMap, annotations: stringMap }, [
    "name",
  ]);
  return closed({ apiVersion: string, kind: string, metadata, spec }, ["metadata", "spec"]);
}

const relabelings = {
  type: "array",
  items: closed({
    action: {
      enum: [
        "replace",
        "keep",
        "drop",
        "hashmod",
        "labelmap",
        "labeldrop",
        "labelkeep",
        "lowercase",
        "uppercase",
      ],
    },
    sourceLabels: strings,
    separator: string,
    regex: string,
    modulus: { type: "integer" },
    targetLabel: string,
    replacement: string,
  }),
} as const;
const duration = { type: "string", pattern: "^([0-9]+(ms|s|m|h|d|w|y))+$" } as const;

export const CUSTOM_KINDS: Readonly<Record<string, AnySchemaObject>> = {
  "monitoring.coreos.com/v1/ServiceMonitor": kind(
    closed(
      {
        selector: closed({ matchLabels: stringMap }),
        namespaceSelector: closed({ matchNames: strings }),
        endpoints: {
          type: "array",
          minItems: 1,
          items: closed({
            port: string,
            interval: duration,
            scrapeTimeout: duration,
            relabelings,
            metricRelabelings: relabelings,
          }),
        },
      },
      ["selector", "endpoints"],
    ),
  ),
  "monitoring.coreos.com/v1/PrometheusRule": kind(
    closed(
      {
        groups: {
          type: "array",
          items: closed(
            {
              name: string,
              rules: {
                type: "array",
                minItems: 1,
                items: closed(
                  {
                    alert: string,
                    record: string,
                    expr: string,
                    for: duration,
                    labels: stringMap,
                    annotations: stringMap,
                  },
                  ["expr"],
                ),
              },
            },
            ["name", "rules"],
          ),
        },
      },
      ["groups"],
    ),
  ),
  "autoscaling.k8s.io/v1/VerticalPodAutoscaler": kind(
    closed(
      {
        targetRef: closed({ apiVersion: string, kind: string, name: string }, ["kind", "name"]),
        recommenders: { type: "array", maxItems: 1, items: closed({ name: string }, ["name"]) },
        updatePolicy: closed({
          minReplicas: { type: "integer" },
          updateMode: { enum: ["Off", "Initial", "Recreate", "InPlaceOrRecreate", "Auto"] },
        }),
        resourcePolicy: closed({
          containerPolicies: {
            type: "array",
            items: closed({
              containerName: string,
              controlledValues: { enum: ["RequestsAndLimits", "RequestsOnly"] },
              controlledResources: strings,
              maxAllowed: quantities,
              minAllowed: quantities,
            }),
          },
        }),
      },
      ["targetRef"],
    ),
  ),
  "grafana.integreatly.org/v1beta1/GrafanaDashboard": kind(
    closed(
      {
        allowCrossNamespaceImport: { type: "boolean" },
        folder: string,
        resyncPeriod: duration,
        instanceSelector: closed({ matchLabels: stringMap }, ["matchLabels"]),
        json: string,
      },
      ["instanceSelector", "json"],
    ),
  ),
};
