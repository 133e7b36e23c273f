// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { RESERVED_PORTS, SPEGEL_DEFAULT_PORTS } from "#api/spegel";
import { ConfigError } from "#config";
import { DEFAULT_METRICS_PORT, DEFAULT_REGISTRY_PORT, DEFAULT_ROUTER_PORT } from "#nodelayout";
import { decodeSpegelConfig } from "./index.ts";

const TYPE = { apiVersion: "spegel.extensions.gardener.cloud/v1alpha1", kind: "SpegelConfig" };

/** `path: message` of each problem. */
function problemsOf(raw: unknown, options = {}): string[] {
  try {
    decodeSpegelConfig(raw, options);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    assert.equal(error.code, "CONFIG_INVALID");
    return error.problems.map(({ path, message }) => `${path}: ${message}`);
  }
  return [];
}

describe("decodeSpegelConfig", () => {
  it("takes an absent, null or empty providerConfig as the normal case", () => {
    for (const raw of [undefined, null, {}]) {
      assert.deepEqual(decodeSpegelConfig(raw), { ports: SPEGEL_DEFAULT_PORTS, warnings: [] });
    }
  });

  it("has the defaults that the node layout has", () => {
    assert.deepEqual(SPEGEL_DEFAULT_PORTS, {
      registryPort: DEFAULT_REGISTRY_PORT,
      routerPort: DEFAULT_ROUTER_PORT,
      metricsPort: DEFAULT_METRICS_PORT,
    });
  });

  it("puts the operator's defaults before the schema's and the Shoot's ports before both", () => {
    const operatorDefaults = { registryPort: 15500, routerPort: 15501 };
    assert.deepEqual(decodeSpegelConfig({ ...TYPE, routerPort: 7001 }, { operatorDefaults }).ports, {
      registryPort: 15500,
      routerPort: 7001,
      metricsPort: 9090,
    });
  });

  it("treats a null port as absent", () => {
    assert.equal(decodeSpegelConfig({ ...TYPE, registryPort: null }).ports.registryPort, 5000);
  });

  it("lists every problem with its field path", () => {
    const problems = problemsOf({
      apiVersion: "v1",
      kind: "SpegelConfig",
      registryPort: 0,
      routerPort: "5001",
      metricsPort: 10250,
      replicas: 2,
    });
    assert.deepEqual(problems, [
      'providerConfig.apiVersion: must be "spegel.extensions.gardener.cloud/v1alpha1", not "v1"',
      "providerConfig.replicas: unknown field",
      "providerConfig.registryPort: must be an integer between 1 and 65535, not 0",
      'providerConfig.routerPort: must be an integer between 1 and 65535, not "5001"',
      "providerConfig.metricsPort: port 10250 is reserved on Gardener nodes: kubelet and kube-proxy",
    ]);
  });

  it("demands apiVersion and kind as soon as anything is set", () => {
    assert.deepEqual(problemsOf({ registryPort: 5005 }), [
      'providerConfig.apiVersion: must be "spegel.extensions.gardener.cloud/v1alpha1"',
      'providerConfig.kind: must be "SpegelConfig"',
    ]);
  });

  it("names the path where the object was found", () => {
    assert.match(
      problemsOf([], { path: "spec.extensions[3].providerConfig" })[0] ?? "",
      /^spec\.extensions\[3\]\.providerConfig: must be an object, not \[\]$/,
    );
  });

  it("refuses anything that is no object", () => {
    for (const raw of [1, "text", true, [], [{}]]) assert.equal(problemsOf(raw).length, 1);
  });

  it("refuses numbers that are no port", () => {
    for (const port of [-1, 0, 1.5, 65536, 2 ** 31, Number.NaN, true, "5000", {}, []]) {
      assert.equal(problemsOf({ ...TYPE, registryPort: port }).length, 1, JSON.stringify(port));
    }
  });

  it("refuses every reserved port", () => {
    // What Gardener and its network extensions run on nodes, once more and one by one.
    const taken = [
      [22, 53, 179, 443, 1023],
      [2751, 2752, 3001, 4240, 4244, 5473, 6443, 8053, 8099],
      [9091, 9098, 9099, 9253, 9353, 9878, 9879, 9890, 9891, 9892, 9893, 9962, 9963, 9964, 9965],
      [10248, 10249, 10250, 10255, 10256, 10257, 10259, 13133, 16909, 16910, 18888, 20257],
    ].flat();
    for (const port of taken) {
      assert.match(problemsOf({ ...TYPE, routerPort: port })[0] ?? "", /is reserved on Gardener nodes/);
    }
    const reserved = RESERVED_PORTS.filter(({ first }) => first >= 1024);
    assert.equal(
      reserved.reduce((sum, { first, last }) => sum + last - first + 1, 0),
      taken.filter((port) => port >= 1024).length,
      "a port that is taken anew belongs here too",
    );
  });

  it("refuses two equal ports, also when one of them is a default", () => {
    assert.deepEqual(problemsOf({ ...TYPE, registryPort: 7000, routerPort: 7000 }), [
      "providerConfig.routerPort: port 7000 is already the registryPort",
    ]);
    assert.deepEqual(problemsOf({ ...TYPE, registryPort: 9090 }), [
      "providerConfig.registryPort: port 9090 is already the metricsPort",
    ]);
    assert.equal(problemsOf({ ...TYPE, registryPort: 7000, routerPort: 7000, metricsPort: 7000 }).length, 3);
  });

  it("warns of ports that something else may take", () => {
    const { warnings } = decodeSpegelConfig({ ...TYPE, registryPort: 50000, routerPort: 30001 });
    assert.equal(warnings.length, 2);
    assert.match(warnings[0] ?? "", /^providerConfig\.registryPort: port 50000 lies in 32768-65535/);
    assert.match(warnings[1] ?? "", /^providerConfig\.routerPort: port 30001 lies in 30000-32767/);
  });

  it("keeps the message short when an object has thousands of unknown fields", () => {
    const hostile = Object.fromEntries(
      Array.from({ length: 5000 }, (_, index) => [`f${index}`.padEnd(500), 1]),
    );
    const problems = problemsOf({ ...TYPE, ...hostile });
    assert.equal(problems.length, 11);
    assert.ok(problems.join().length < 2000);
    assert.match(problems[10] ?? "", /4990 more unknown fields/);
  });

  it("is not fooled by names that every object inherits", () => {
    assert.deepEqual(
      problemsOf(JSON.parse(`{"apiVersion":"${TYPE.apiVersion}","kind":"SpegelConfig","toString":1}`)),
      ["providerConfig.toString: unknown field"],
    );
  });

  it("never throws anything but a ConfigError, whatever the JSON", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (raw) => {
        problemsOf(raw);
      }),
    );
    fc.assert(
      fc.property(fc.record({ registryPort: fc.jsonValue(), routerPort: fc.jsonValue() }), (ports) => {
        problemsOf({ ...TYPE, ...ports });
      }),
    );
  });
});
