// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { test } from "node:test";
import { brotliDecompressSync } from "node:zlib";
import { parseAllDocuments } from "yaml";
import type { ManagedResource } from "#api/gardener";
import type { KubeObject } from "#kube";
import { secretReferences, sha256Hex } from "./gardener-references.ts";
import { notReadyReason, payloadSecret } from "./managed-resource.ts";

const name = { name: "extension-registry-spegel", namespace: "shoot--foo--bar" };
const objectOf = (data: Record<string, unknown>): KubeObject =>
  ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "a" }, data }) as KubeObject;

const payloadText = (objects: KubeObject[]): string =>
  brotliDecompressSync(
    Buffer.from(payloadSecret({ ...name, objects }).data?.["data.yaml.br"] ?? "", "base64"),
  ).toString();

test("a payload is an immutable, collectable secret whose name follows its content", () => {
  const secret = payloadSecret({ ...name, objects: [objectOf({ a: "1" })] });
  assert.match(secret.metadata.name, /^managedresource-extension-registry-spegel-[0-9a-f]{8}$/);
  assert.equal(secret.immutable, true);
  assert.deepEqual(secret.metadata.labels, {
    "resources.gardener.cloud/garbage-collectable-reference": "true",
  });
  assert.deepEqual(payloadSecret({ ...name, objects: [objectOf({ a: "1" })] }), secret);
  assert.notEqual(
    payloadSecret({ ...name, objects: [objectOf({ a: "2" })] }).metadata.name,
    secret.metadata.name,
  );
});

test("the payload says the same to a YAML 1.1 reader, whatever the strings look like", () => {
  const data = {
    on: "on",
    yes: "no",
    octal: "0755",
    sexagesimal: "1:20",
    version: "1.10",
    empty: "",
    lines: "a\n---\nb: c\n",
    number: 420,
  };
  const objects = [objectOf(data), objectOf({ second: "x" })];
  const documents = parseAllDocuments(payloadText(objects), { version: "1.1" });
  assert.deepEqual(
    documents.map((document) => document.toJS()),
    objects,
  );
});

test("objects that are used twice are written twice, not as an alias", () => {
  const labels = { app: "x" };
  const text = payloadText([
    { apiVersion: "v1", kind: "Pod", metadata: { name: "p", labels, annotations: labels } },
  ]);
  assert.doesNotMatch(text, /[&*]a1/);
});

test("references name the secret under eight digits of its hash", () => {
  const key = `reference.resources.gardener.cloud/secret-${sha256Hex("b").slice(0, 8)}`;
  assert.equal(secretReferences(["a", "b"])[key], "b");
  assert.deepEqual(Object.keys(secretReferences(["a", "b"])), Object.keys(secretReferences(["b", "a"])));
});

test("a ManagedResource is ready only when its last change was applied, is healthy and has settled", () => {
  const resource = (observedGeneration: number, statuses: string[]): ManagedResource => ({
    metadata: { ...name, generation: 2 },
    spec: { secretRefs: [] },
    status: {
      observedGeneration,
      conditions: ["ResourcesApplied", "ResourcesHealthy", "ResourcesProgressing"].flatMap((type, index) =>
        statuses[index] === undefined ? [] : [{ type, status: statuses[index]!, message: `says ${type}` }],
      ),
    },
  });
  assert.equal(notReadyReason(resource(2, ["True", "True", "False"])), undefined);
  assert.match(notReadyReason(resource(1, ["True", "True", "False"])) ?? "", /last change/);
  assert.match(
    notReadyReason(resource(2, ["False", "True", "False"])) ?? "",
    /ResourcesApplied is False: says/,
  );
  assert.match(
    notReadyReason(resource(2, ["True", "Unknown", "False"])) ?? "",
    /ResourcesHealthy is Unknown/,
  );
  assert.match(notReadyReason(resource(2, ["True", "True", "True"])) ?? "", /ResourcesProgressing is True/);
  assert.match(notReadyReason(resource(2, [])) ?? "", /not reported yet/);
  assert.match(
    notReadyReason({ metadata: { ...name, generation: 1 }, spec: { secretRefs: [] } }) ?? "",
    /last change/,
  );
});
