// SPDX-License-Identifier: Apache-2.0
/** Gardener's checklist for components of control planes (docs/development/component-checklist.md), rule by rule. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { valueAt } from "#kit/api-server";
import { DEFAULT_EXTENSION_OPTIONS } from "../options.ts";
import { bootstrapperObjects } from "./bootstrapper.ts";

const NAME = "registry-spegel-bootstrapper";
const NAMESPACE = "shoot--foo--bar";
const SELECTOR = { "app.kubernetes.io/name": NAME };
const objects = bootstrapperObjects(
  {
    namespace: NAMESPACE,
    replicas: 1,
    ipFamilies: ["IPv6", "IPv4"],
    serverSecretName: "server",
    bundleSecretName: "bundle",
    genericKubeconfigSecretName: "generic",
  },
  { ...DEFAULT_EXTENSION_OPTIONS, bootstrapperImage: "registry.example.org/b@sha256:aa", nodeImage: "n" },
);
const get = (kind: string): object => {
  const found = objects.find((each) => each.kind === kind);
  assert.ok(found, kind);
  return found;
};
const pod = valueAt<Record<string, unknown>>(get("Deployment"), "spec.template.spec");
const container = valueAt<Record<string, unknown>>(pod, "containers.0");

test("every object is one of the Shoot's control plane", () => {
  for (const object of objects) {
    const { name, namespace, labels = {} } = object.metadata;
    assert.deepEqual([name, namespace], [NAME, NAMESPACE]);
    assert.equal(labels["app.kubernetes.io/name"], NAME);
    assert.equal(labels["gardener.cloud/role"], "controlplane");
  }
});

test("replicas and their spreading are the resource manager's", () => {
  assert.deepEqual(valueAt(get("Deployment"), "metadata.labels"), {
    ...SELECTOR,
    "gardener.cloud/role": "controlplane",
    "high-availability-config.resources.gardener.cloud/type": "controller",
  });
  assert.deepEqual(Object.keys(pod).sort(), [
    "automountServiceAccountToken",
    "containers",
    "priorityClassName",
    "securityContext",
    "serviceAccountName",
    "volumes",
  ]);
  assert.equal(valueAt(get("Deployment"), "spec.revisionHistoryLimit"), 2);
  assert.deepEqual(valueAt(get("Deployment"), "spec.selector.matchLabels"), SELECTOR);
});

test("network policies let it resolve names and reach the Shoot's API server, and nothing else", () => {
  assert.deepEqual(valueAt(get("Deployment"), "spec.template.metadata.labels"), {
    ...SELECTOR,
    "gardener.cloud/role": "controlplane",
    "networking.gardener.cloud/to-dns": "allowed",
    "networking.resources.gardener.cloud/to-kube-apiserver-tcp-443": "allowed",
  });
});

test("the gateway and Prometheus reach it, each on its port", () => {
  const service = get("Service");
  assert.deepEqual(valueAt(service, "metadata.annotations"), {
    "networking.istio.io/exportTo": "istio-ingress",
    "networking.resources.gardener.cloud/from-all-scrape-targets-allowed-ports":
      '[{"port":8080,"protocol":"TCP"}]',
  });
  assert.deepEqual(valueAt(service, "spec"), {
    type: "ClusterIP",
    selector: SELECTOR,
    ports: [
      { name: "tls-server", port: 443, targetPort: 8443, protocol: "TCP" },
      { name: "http-metrics", port: 8080, targetPort: 8080, protocol: "TCP" },
    ],
  });
});

test("it may be evicted one at a time, also when it is not healthy", () => {
  assert.deepEqual(valueAt(get("PodDisruptionBudget"), "spec"), {
    maxUnavailable: 1,
    selector: { matchLabels: SELECTOR },
    unhealthyPodEvictionPolicy: "AlwaysAllow",
  });
});

test("it has requests that are adapted, and no limits", () => {
  assert.deepEqual(container["resources"], { requests: { cpu: "10m", memory: "48Mi" } });
  assert.deepEqual(valueAt(get("VerticalPodAutoscaler"), "spec"), {
    targetRef: { apiVersion: "apps/v1", kind: "Deployment", name: NAME },
    updatePolicy: { updateMode: "InPlaceOrRecreate" },
    resourcePolicy: {
      containerPolicies: [
        {
          containerName: container["name"],
          controlledValues: "RequestsOnly",
          minAllowed: { memory: "40Mi" },
        },
      ],
    },
  });
});

test("it has the priority of a Shoot's control plane, and no rights on its node or in the seed", () => {
  assert.equal(pod["priorityClassName"], "gardener-system-200");
  assert.equal(pod["serviceAccountName"], NAME);
  assert.equal(pod["automountServiceAccountToken"], false);
  assert.equal(valueAt(get("ServiceAccount"), "automountServiceAccountToken"), false);
  assert.deepEqual(pod["securityContext"], {
    runAsNonRoot: true,
    runAsUser: 65532,
    runAsGroup: 65532,
    fsGroup: 65532,
    seccompProfile: { type: "RuntimeDefault" },
  });
  assert.deepEqual(container["securityContext"], {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
  });
});

test("the kubelet asks after it on a port without client certificates", () => {
  const ports = valueAt<{ name: string; containerPort: number }[]>(container, "ports");
  assert.equal(ports.find(({ name }) => name === "health")?.containerPort, 8081);
  assert.deepEqual(valueAt(container, "livenessProbe.httpGet"), { path: "/healthz", port: "health" });
  assert.deepEqual(valueAt(container, "readinessProbe.httpGet"), { path: "/readyz", port: "health" });
  assert.ok(valueAt<string[]>(container, "args").includes("--health-address=:8081"));
});

test("its secrets are mounted, and named for the garbage collector where they are used", () => {
  const sources = (index: number): [string, string[]][] =>
    valueAt<{ secret: { name: string; items: { key: string; path: string }[] } }[]>(
      pod,
      `volumes.${index}.projected.sources`,
    ).map(({ secret }) => [secret.name, secret.items.map(({ key, path }) => `${key} as ${path}`)]);
  assert.deepEqual(sources(0), [
    ["server", ["tls.crt as tls.crt", "tls.key as tls.key"]],
    ["bundle", ["bundle.crt as ca.crt"]],
  ]);
  assert.deepEqual(sources(1), [
    ["generic", ["kubeconfig as kubeconfig"]],
    ["shoot-access-registry-spegel-bootstrapper", ["token as token"]],
  ]);
  const references = valueAt<Record<string, string>>(get("Deployment"), "metadata.annotations");
  assert.deepEqual(valueAt(get("Deployment"), "spec.template.metadata.annotations"), references);
  const used = [...sources(0), ...sources(1)].map(([name]) => name);
  assert.deepEqual(Object.values(references).sort(), used.sort());
  for (const key of Object.keys(references))
    assert.match(key, /^reference\.resources\.gardener\.cloud\/secret-[0-9a-f]{8}$/);
});

test("it hands out addresses of the Shoot's families, the preferred one first", () => {
  assert.ok(valueAt<string[]>(container, "args").includes("--ip-families=IPv6,IPv4"));
});
