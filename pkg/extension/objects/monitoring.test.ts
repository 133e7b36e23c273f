// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { valueAt } from "#kit/api-server";
import { DEFAULT_EXTENSION_OPTIONS } from "../options.ts";
import { BOOTSTRAPPER_JOB, SHOOT_RULES } from "./alerts.ts";
import { bootstrapperObjects } from "./bootstrapper.ts";
import { shootDashboardJSON } from "./dashboard.ts";
import { BOOTSTRAPPER_METRICS, monitoringObjects, NODE_METRICS } from "./monitoring.ts";

interface Panel {
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets: readonly { readonly expr: string }[];
}

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const dashboard = JSON.parse(shootDashboardJSON()) as { readonly panels: readonly Panel[] };
const alerts = SHOOT_RULES.filter((rule) => "alert" in rule);
const expressions = [
  ...SHOOT_RULES.map(({ expr }) => expr),
  ...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
];
const kept = new Set([...NODE_METRICS, ...BOOTSTRAPPER_METRICS]);
const manifest = (kind: string): object => {
  const found = monitoringObjects("shoot--foo--bar").find((each) => each.kind === kind);
  assert.ok(found, kind);
  return found;
};

test("exactly the metrics that alerts and the dashboard use are kept", () => {
  const used = new Set(expressions.flatMap((expr) => expr.match(/\b(?:spegel|node|http)_[a-z_]+/g) ?? []));
  assert.deepEqual([...used].sort(), [...kept].sort());
});

test("every metric of alerts and the dashboard is one of the programs or of node-exporter", () => {
  const sources = globSync("{cmd,pkg}/**/*.ts", {
    cwd: ROOT,
    exclude: ["**/*.test.ts", "pkg/extension/objects/*"],
  });
  const known = new Set(
    sources.flatMap((file) =>
      [...readFileSync(`${ROOT}/${file}`, "utf8").matchAll(/"(spegel_[a-z_]+)"/g)].map(([, name]) => name),
    ),
  );
  assert.ok(known.size > 15);
  for (const name of kept) {
    if (name === "node_textfile_mtime_seconds") continue;
    assert.ok(known.has(name.replace(/_bucket$/, "")), `${name} is no metric`);
  }
});

test("every alert says whom it is for, what happened and what to do", () => {
  assert.ok(alerts.length >= 8);
  assert.equal(new Set(alerts.map(({ alert }) => alert)).size, alerts.length);
  for (const { alert, labels, annotations } of alerts) {
    assert.match(alert, /^RegistrySpegel[A-Z]/);
    assert.deepEqual(Object.keys(labels).sort(), ["service", "severity", "type", "visibility"], alert);
    assert.equal(labels.service, "registry-spegel");
    assert.match(annotations.summary, /\.$/);
    assert.match(annotations.description, /[Ll]ook at|must be|[Rr]econcile|[Rr]eplace/, alert);
  }
});

test("what is recorded has a name that the Prometheus of the seed takes over", () => {
  for (const rule of SHOOT_RULES) if ("record" in rule) assert.match(rule.record, /^shoot:.+:.+$/);
});

test("the bootstrapper is found by the labels and the port of its Service", () => {
  const service = bootstrapperObjects(
    {
      namespace: "shoot--foo--bar",
      replicas: 1,
      ipFamilies: ["IPv4"],
      serverSecretName: "s",
      bundleSecretName: "b",
      genericKubeconfigSecretName: "k",
    },
    { ...DEFAULT_EXTENSION_OPTIONS, bootstrapperImage: "a", nodeImage: "b" },
  ).find(({ kind }) => kind === "Service");
  const monitor = manifest("ServiceMonitor");
  const wanted = valueAt<Record<string, string>>(monitor, "spec.selector.matchLabels");
  const labels = valueAt<Record<string, string>>(service, "metadata.labels");
  for (const [key, value] of Object.entries(wanted)) assert.equal(labels[key], value);
  const ports = valueAt<{ name: string }[]>(service, "spec.ports").map(({ name }) => name);
  assert.ok(ports.includes(valueAt<string>(monitor, "spec.endpoints.0.port")));
  assert.equal(valueAt(service, "metadata.name"), BOOTSTRAPPER_JOB, "a ServiceMonitor's job is its Service");
});

test("nodes are scraped through the Shoot's API server with the token of its Prometheus", () => {
  const scrape = manifest("ScrapeConfig");
  const credentials = { name: "shoot-access-prometheus-shoot", key: "token" };
  assert.deepEqual(valueAt(scrape, "spec.authorization.credentials"), credentials);
  assert.deepEqual(valueAt(scrape, "spec.kubernetesSDConfigs.0.authorization.credentials"), credentials);
  const regex = new RegExp(valueAt<string>(scrape, "spec.metricRelabelings.0.regex"));
  for (const name of NODE_METRICS) assert.match(name, regex);
  for (const name of ["go_goroutines", "node_cpu_seconds_total", "spegel_x", "xspegel_swarm_peers"])
    assert.doesNotMatch(name, regex);
});

test("the dashboard's panels do not overlap, and ask the Shoot's Prometheus", () => {
  const cells = dashboard.panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_, at) => `${x + (at % w)},${y + Math.floor(at / w)}`),
  );
  assert.equal(new Set(cells).size, cells.length);
  for (const panel of dashboard.panels) assert.equal(valueAt(panel, "datasource"), "prometheus");
});
