// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Ajv } from "ajv";
import { parse } from "yaml";
import { decodeSpegelConfig } from "#admission";
import { BOOTSTRAPPER_NAME, EXTENSION_NAME, EXTENSION_TYPE } from "#extension";
import { valueAt } from "#kit/api-server";
import { readFlags as readAdmissionFlags } from "../../cmd/admission/flags.ts";
import { readFlags as readExtensionFlags } from "../../cmd/extension/flags.ts";
import { CUSTOM_KINDS } from "./custom-kinds.ts";
import { type Helm, type KubernetesObject, openHelm, parseObjects } from "./helm.ts";
import { type JudgeObject, openKubernetesSchemas } from "./kubernetes-schema.ts";
import { operatorExtensionSchemas } from "./operator-extension.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const EXTENSION = join(ROOT, "charts/gardener-extension-registry-spegel");
const RUNTIME = join(ROOT, "charts/gardener-extension-registry-spegel-admission/runtime");
const APPLICATION = join(ROOT, "charts/gardener-extension-registry-spegel-admission/application");
const CHARTS = { extension: EXTENSION, runtime: RUNTIME, application: APPLICATION };
const ADMISSION_NAME = `${EXTENSION_NAME}-admission`;
const CLUSTER_KINDS = ["ClusterRole", "ClusterRoleBinding"];

interface Container {
  readonly image: string;
  readonly args: readonly string[];
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
  readonly securityContext: unknown;
  readonly livenessProbe: { readonly httpGet: { readonly path: string; readonly port: string } };
  readonly readinessProbe: { readonly httpGet: { readonly path: string; readonly port: string } };
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[];
}

interface PodSpec {
  readonly containers: readonly [Container];
  readonly securityContext: unknown;
  readonly serviceAccountName: string;
  readonly priorityClassName?: string;
  readonly volumes?: readonly { readonly name: string }[];
  readonly hostNetwork?: boolean;
}

interface Deployment {
  readonly object: KubernetesObject;
  readonly labels: Readonly<Record<string, string>>;
  readonly podLabels: Readonly<Record<string, string>>;
  readonly podAnnotations: Readonly<Record<string, string>> | undefined;
  readonly pod: PodSpec;
  readonly container: Container;
}

let helm: Helm;
let judge: JudgeObject;
let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "gardener-charts-"));
  [helm, judge] = await Promise.all([openHelm(), openKubernetesSchemas(CUSTOM_KINDS)]);
});
after(() => rm(directory, { recursive: true }));

async function render(chart: string, args: readonly string[]): Promise<KubernetesObject[]> {
  const { ok, output } = await helm.template(chart, args, "release");
  assert.ok(ok, output);
  return parseObjects(output);
}

const valuesOf = (chart: string, file: string): string =>
  `--values=${join(chart, "ci", `${file}-values.yaml`)}`;

/** Rules about the extension lie where the Prometheus of a seed looks for them. */
function namespaceOf(chart: string, kind: string): string | undefined {
  if (chart === EXTENSION && kind === "PrometheusRule") return "garden";
  return CLUSTER_KINDS.includes(kind) ? undefined : "mirror";
}

function find(objects: readonly KubernetesObject[], kind: string): KubernetesObject {
  const [found, ...others] = objects.filter((each) => each.kind === kind);
  assert.ok(found, `no ${kind}`);
  assert.deepEqual(others, [], `several of kind ${kind}`);
  return found;
}

function deploymentOf(objects: readonly KubernetesObject[]): Deployment {
  const object = find(objects, "Deployment");
  const pod = valueAt<PodSpec>(object, "spec.template.spec");
  return {
    object,
    labels: object.metadata.labels ?? {},
    podLabels: valueAt(object, "spec.template.metadata.labels"),
    podAnnotations: valueAt<{ annotations?: Record<string, string> }>(object, "spec.template.metadata")
      .annotations,
    pod,
    container: pod.containers[0],
  };
}

const rulesOf = (object: object): unknown => valueAt(object, "rules");

function readRules(path: string): unknown {
  return rulesOf(parse(readFileSync(path, "utf8")) as object);
}

for (const [what, chart] of Object.entries(CHARTS)) {
  describe(`the chart of the ${what}`, () => {
    for (const file of readdirSync(join(chart, "ci"))) {
      const values = `--values=${join(chart, "ci", file)}`;

      it(`lints without a warning: ${file}`, async () => {
        const { ok, output } = await helm.lint(chart, [values]);
        assert.ok(ok, output);
        assert.doesNotMatch(output, /\[(WARNING|ERROR)\]/);
      });

      it(`gives objects that the API server's schemas accept: ${file}`, async () => {
        const objects = await render(chart, [values]);
        assert.ok(objects.length >= 2);
        assert.deepEqual(objects.flatMap(judge), []);
        const keys = objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
        assert.equal(new Set(keys).size, keys.length, "two objects have one name");
        for (const { kind, metadata } of objects) {
          assert.equal(metadata.namespace, namespaceOf(chart, kind), kind);
        }
      });
    }

    it("has the version of the project", () => {
      const { version, appVersion } = parse(readFileSync(join(chart, "Chart.yaml"), "utf8")) as Record<
        string,
        string
      >;
      const project = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
        readonly version: string;
      };
      assert.deepEqual([version, appVersion], [project.version, project.version]);
    });
  });
}

for (const [what, chart, file] of [
  ["extension", EXTENSION, "default"],
  ["admission", RUNTIME, "operator"],
] as const) {
  describe(`what runs of the ${what}`, () => {
    it("holds together: selectors, ports, probes, accounts, volumes", async () => {
      for (const name of readdirSync(join(chart, "ci"))) {
        const objects = await render(chart, [`--values=${join(chart, "ci", name)}`]);
        const { object, podLabels, pod, container } = deploymentOf(objects);
        const selects = (selector: Record<string, string>): boolean =>
          Object.entries(selector).every(([key, value]) => podLabels[key] === value);
        const service = find(objects, "Service");
        assert.ok(selects(valueAt(object, "spec.selector.matchLabels")));
        assert.ok(selects(valueAt(service, "spec.selector")));
        assert.ok(selects(valueAt(find(objects, "PodDisruptionBudget"), "spec.selector.matchLabels")));
        assert.equal(find(objects, "ServiceAccount").metadata.name, pod.serviceAccountName);
        const ports = container.ports.map(({ containerPort }) => containerPort);
        assert.deepEqual(ports, [10250, 8080, 8081]);
        assert.deepEqual(
          valueAt<{ port: number; targetPort: number }[]>(service, "spec.ports").map((each) => [
            each.port,
            each.targetPort,
          ]),
          [
            [443, 10250],
            [8080, 8080],
          ],
        );
        assert.deepEqual(container.livenessProbe.httpGet, {
          path: "/healthz",
          port: "health",
          scheme: "HTTP",
        });
        assert.deepEqual(container.readinessProbe.httpGet, {
          path: "/readyz",
          port: "health",
          scheme: "HTTP",
        });
        const volumes = (pod.volumes ?? []).map((volume) => volume.name);
        assert.deepEqual(
          (container.volumeMounts ?? []).map((mount) => mount.name),
          volumes,
        );
        for (const binding of objects.filter(({ kind }) => kind.endsWith("Binding"))) {
          const { kind, name: role } = valueAt<{ kind: string; name: string }>(binding, "roleRef");
          assert.equal(find(objects, kind).metadata.name, role);
          assert.deepEqual(valueAt(binding, "subjects"), [
            { kind: "ServiceAccount", name: pod.serviceAccountName, namespace: "mirror" },
          ]);
        }
      }
    });

    it("meets the Pod Security Standard restricted", async () => {
      const { pod, container } = deploymentOf(await render(chart, [valuesOf(chart, file)]));
      assert.deepEqual(pod.securityContext, {
        runAsNonRoot: true,
        runAsUser: 65532,
        runAsGroup: 65532,
        fsGroup: 65532,
        seccompProfile: { type: "RuntimeDefault" },
      });
      assert.deepEqual(container.securityContext, {
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] },
      });
      assert.equal(pod.hostNetwork, undefined);
    });

    it("is there twice, and evicted one at a time", async () => {
      const objects = await render(chart, [valuesOf(chart, file)]);
      const { object, labels } = deploymentOf(objects);
      assert.equal(valueAt(object, "spec.replicas"), 2);
      assert.equal(labels["high-availability-config.resources.gardener.cloud/type"], "server");
      assert.equal(valueAt(find(objects, "PodDisruptionBudget"), "spec.maxUnavailable"), 1);
      assert.equal(
        valueAt(find(objects, "PodDisruptionBudget"), "spec.unhealthyPodEvictionPolicy"),
        "AlwaysAllow",
      );
      const policy = valueAt(
        find(objects, "VerticalPodAutoscaler"),
        "spec.resourcePolicy.containerPolicies.0",
      );
      assert.equal((policy as { controlledValues: string }).controlledValues, "RequestsOnly");
    });

    it("refuses ports that meet, and values that nobody reads", async () => {
      for (const [set, message] of [
        ["image.ref=", /image\.ref must be set/],
        ["image.ref=an image", /image.ref|image\/ref/],
        ["defaults.routerPort=5000", /must differ/],
        ["defaults.routerPort=70000", /routerPort/],
        ["replicas=3", /replicas/],
        ["logLevel=LOUD", /logLevel/],
        ["defaults.metricsPort=10250", /metricsPort/],
        ["capabilities={pull}", /capabilities/],
      ] as const) {
        const { ok, output } = await helm.template(chart, [valuesOf(chart, file), `--set=${set}`]);
        assert.equal(ok, false, set);
        assert.match(output, message);
      }
    });
  });
}

describe("the extension in a seed", () => {
  it("is told what the operator decided", async () => {
    const { container } = deploymentOf(await render(EXTENSION, [valuesOf(EXTENSION, "all")]));
    assert.deepEqual(await readExtensionFlags({ argv: container.args, environment: {} }), {
      leaderElection: true,
      leaderElectionId: "gardener-extension-registry-spegel-leader-election",
      leaderElectionNamespace: "mirror",
      heartbeatNamespace: "mirror",
      heartbeatRenewIntervalSeconds: 15,
      maxConcurrentReconciles: 20,
      ignoreOperationAnnotation: true,
      extensionClasses: ["shoot"],
      disableControllers: ["heartbeat"],
      disableWebhooks: ["registry-spegel"],
      webhookConfigMode: "service",
      webhookConfigNamespace: "mirror",
      webhookConfigServerHost: "",
      webhookConfigServerPort: 10250,
      webhookConfigServicePort: 443,
      metricsBindAddress: ":8080",
      healthBindAddress: ":8081",
      shutdownDelaySeconds: 5,
      gardenerVersion: "v1.150.0",
      selfHostedShootCluster: true,
      logLevel: "DEBUG",
      logFormat: "json",
      nodeImage: `registry.example.com/spegel@sha256:${"b".repeat(64)}`,
      bootstrapperImage: `registry.example.com/registry-spegel-bootstrapper@sha256:${"c".repeat(64)}`,
      registryPort: 15500,
      routerPort: 15501,
      metricsPort: 19090,
      resolveTags: false,
      mirrorProbedRegistries: false,
      registryFilters: ["^private[.]example[.]com/", ":latest$"],
      kubeApiQps: 200,
      kubeApiBurst: 260,
      memoryHigh: "120M",
      memoryMax: "150M",
      watchdogSeconds: 30,
      istioIngressNamespace: "istio-ingress-handler",
      istioIngressLabels: { istio: "handler", "istio-role": "seed" },
      bootstrapperCpuRequest: "5m",
      bootstrapperMemoryRequest: "60Mi",
    });
  });

  it("takes images from an image vector, as an object or as text", async () => {
    const read = async (objects: readonly KubernetesObject[]): Promise<string[]> => {
      const { container, pod } = deploymentOf(objects);
      const { metadata, data = {} } = find(objects, "ConfigMap");
      const path = valueAt<string>(container, "env.0.value");
      assert.equal(valueAt(container, "env.0.name"), "IMAGEVECTOR_OVERWRITE");
      assert.equal(valueAt(pod, "volumes.0.configMap.name"), metadata.name);
      assert.equal(`${container.volumeMounts?.[0]?.mountPath}/${Object.keys(data)[0]}`, path);
      const file = join(directory, `${metadata.name}.yaml`);
      await writeFile(file, Object.values(data)[0] ?? "");
      const { nodeImage, bootstrapperImage } = await readExtensionFlags({
        argv: container.args,
        environment: { IMAGEVECTOR_OVERWRITE: file },
      });
      return [nodeImage, bootstrapperImage];
    };
    const all = await render(EXTENSION, [valuesOf(EXTENSION, "all")]);
    assert.deepEqual(await read(all), [
      `registry.example.com/spegel@sha256:${"b".repeat(64)}`,
      `mirror.example.com/registry-spegel-bootstrapper@sha256:${"c".repeat(64)}`,
    ]);
    const text = await render(EXTENSION, [valuesOf(EXTENSION, "image-vector")]);
    assert.deepEqual(await read(text), [
      "mirror.example.com/spegel:v1.0.0",
      "mirror.example.com/registry-spegel-bootstrapper:v1.0.0",
    ]);
    const checksum = (objects: readonly KubernetesObject[]): string | undefined =>
      deploymentOf(objects).podAnnotations?.["checksum/imagevector-overwrite"];
    assert.match(checksum(text) ?? "", /^[0-9a-f]{64}$/);
    assert.notEqual(checksum(text), checksum(all), "a change starts the pods anew");
    assert.equal(checksum(await render(EXTENSION, [valuesOf(EXTENSION, "default")])), undefined);
  });

  it("has the program's own defaults when nothing is said", async () => {
    const { container } = deploymentOf(await render(EXTENSION, [valuesOf(EXTENSION, "bare")]));
    const images = [
      "--node-image=registry.example.com/spegel:v1",
      "--bootstrapper-image=registry.example.com/bootstrapper:v1",
    ];
    const own = await readExtensionFlags({ argv: images, environment: {} });
    const { registryPort, routerPort, metricsPort, watchdogSeconds, ...flags } = await readExtensionFlags({
      argv: container.args,
      environment: {},
    });
    const operatorDefaults = { registryPort, routerPort, metricsPort } as Record<string, number>;
    assert.deepEqual(decodeSpegelConfig(undefined, { operatorDefaults }), decodeSpegelConfig(undefined));
    assert.equal(watchdogSeconds, 0);
    const placed = {
      leaderElectionNamespace: "mirror",
      heartbeatNamespace: "mirror",
      webhookConfigNamespace: "mirror",
    };
    assert.deepEqual(flags, { ...own, ...placed });
  });

  it("may do what its tests do, and no more", async () => {
    const objects = await render(EXTENSION, [valuesOf(EXTENSION, "default")]);
    const cluster = rulesOf(find(objects, "ClusterRole"));
    const own = rulesOf(find(objects, "Role"));
    assert.deepEqual(cluster, readRules(join(EXTENSION, "rbac/cluster-role.yaml")));
    assert.deepEqual(own, readRules(join(EXTENSION, "rbac/role.yaml")));
    for (const rule of [...(cluster as object[]), ...(own as object[])]) {
      assert.doesNotMatch(JSON.stringify(rule), /"\*"/, "no wildcards");
    }
  });

  it("is reached by the API server and by Prometheus, and reaches the API server", async () => {
    const objects = await render(EXTENSION, [valuesOf(EXTENSION, "default")]);
    const { podLabels, podAnnotations, pod } = deploymentOf(objects);
    const service = find(objects, "Service");
    assert.equal(service.metadata.name, EXTENSION_NAME, "the name under which the webhook is registered");
    const prefix = "networking.resources.gardener.cloud/";
    const annotations = Object.fromEntries(
      Object.entries(service.metadata.annotations ?? {}).map(([key, value]) => [
        key.replace(prefix, ""),
        value,
      ]),
    );
    assert.deepEqual(JSON.parse(annotations["from-world-to-ports"] ?? ""), [
      { protocol: "TCP", port: 10250 },
    ]);
    assert.deepEqual(JSON.parse(annotations["from-all-seed-scrape-targets-allowed-ports"] ?? ""), [
      { protocol: "TCP", port: 8080 },
    ]);
    assert.deepEqual(JSON.parse(annotations["namespace-selectors"] ?? ""), [
      { matchLabels: { "kubernetes.io/metadata.name": "garden" } },
    ]);
    assert.equal(annotations["pod-label-selector-namespace-alias"], "extensions");
    assert.equal(podLabels["networking.gardener.cloud/to-runtime-apiserver"], "allowed");
    assert.equal(podLabels["networking.gardener.cloud/to-dns"], "allowed");
    assert.deepEqual(podAnnotations, {
      "prometheus.io/scrape": "true",
      "prometheus.io/port": "8080",
      "prometheus.io/name": "release",
    });
    assert.equal(pod.priorityClassName, "gardener-system-900");
    const unscraped = deploymentOf(await render(EXTENSION, [valuesOf(EXTENSION, "bare")]));
    assert.equal(unscraped.podAnnotations, undefined);
  });

  it("gives the seed's Prometheus its alerts, where that scrapes the pods", async () => {
    const objects = await render(EXTENSION, [valuesOf(EXTENSION, "default")]);
    const { metadata, spec } = find(objects, "PrometheusRule");
    assert.equal(metadata.labels?.["prometheus"], "seed");
    assert.deepEqual(spec, parse(readFileSync(join(EXTENSION, "monitoring/rules.yaml"), "utf8")));
    const { podLabels } = deploymentOf(objects);
    assert.match(
      JSON.stringify(spec),
      new RegExp(`app_kubernetes_io_name=.{1,2}${podLabels["app.kubernetes.io/name"]}`),
    );
    for (const set of ["metrics.enableScraping=false", "metrics.enableAlerts=false"]) {
      const without = await render(EXTENSION, [valuesOf(EXTENSION, "default"), `--set=${set}`]);
      assert.ok(!without.some(({ kind }) => kind === "PrometheusRule"), set);
    }
  });

  it("refuses settings that would break every node", async () => {
    for (const [set, message] of [
      ["node.image.ref=", /node\.image\.ref must be set/],
      ["bootstrapper.image.ref=", /bootstrapper\.image\.ref must be set/],
      ["node.memoryMax=100Mi", /memoryMax/],
      ["node.memoryHigh=lots", /memoryHigh/],
      ["node.resolveTags=perhaps", /resolveTags/],
      ["imageVectorOverwrite=1", /imageVectorOverwrite/],
      ["clientConnection.qps=0", /qps/],
      ["node.watchdogSeconds=-1", /watchdogSeconds/],
      ["bootstrapper.requests.memory=much", /memory/],
      ["controllers.extension.concurrentSyncs=0", /concurrentSyncs/],
      ["disableControllers={all}", /disableControllers/],
    ] as const) {
      const { ok, output } = await helm.template(EXTENSION, [valuesOf(EXTENSION, "default"), `--set=${set}`]);
      assert.equal(ok, false, set);
      assert.match(output, message);
    }
  });
});

describe("the admission in a garden", () => {
  const flagsOf = async (file: string) => {
    const { container, pod, podLabels } = deploymentOf(await render(RUNTIME, [valuesOf(RUNTIME, file)]));
    return {
      flags: await readAdmissionFlags({ argv: container.args, environment: {} }),
      container,
      pod,
      podLabels,
    };
  };
  const TO_GARDEN = "networking.resources.gardener.cloud/to-virtual-garden-kube-apiserver-tcp-443";

  it("is registered in the virtual garden under the name of its Service", async () => {
    const { flags, pod, podLabels } = await flagsOf("operator");
    assert.equal(flags.webhookConfigMode, "url");
    assert.equal(flags.webhookConfigUrl, `${ADMISSION_NAME}.mirror`);
    assert.equal(flags.webhookConfigOwnerNamespace, "extension-extension-registry-spegel");
    assert.equal(flags.kubeconfig, undefined, "gardener-operator brings GARDEN_KUBECONFIG");
    assert.equal(podLabels[TO_GARDEN], "allowed");
    assert.equal(pod.priorityClassName, "gardener-garden-system-400");
    const objects = await render(RUNTIME, [valuesOf(RUNTIME, "operator")]);
    const { name, annotations } = find(objects, "Service").metadata;
    assert.equal(name, ADMISSION_NAME);
    const prefix = "networking.resources.gardener.cloud/from-all-";
    assert.equal(
      annotations?.[`${prefix}webhook-targets-allowed-ports`],
      '[{"protocol":"TCP","port":10250}]',
    );
    assert.equal(
      annotations?.[`${prefix}garden-scrape-targets-allowed-ports`],
      '[{"protocol":"TCP","port":8080}]',
    );
  });

  it("takes the kubeconfig from secrets where there is no gardener-operator", async () => {
    const { flags, container, pod } = await flagsOf("all");
    assert.equal(flags.kubeconfig, "/var/run/secrets/gardener.cloud/kubeconfig");
    assert.equal(container.volumeMounts?.[0]?.mountPath, "/var/run/secrets/gardener.cloud");
    const sources = valueAt<{ secret: { name: string } }[]>(pod, "volumes.0.projected.sources");
    assert.deepEqual(
      sources.map(({ secret }) => secret.name),
      ["generic-token-kubeconfig", "access-registry-spegel-admission"],
    );
    assert.deepEqual([flags.registryPort, flags.routerPort, flags.metricsPort], [15500, 15501, 19090]);
    assert.equal(flags.logLevel, "DEBUG");
    const { ok, output } = await helm.template(RUNTIME, [
      valuesOf(RUNTIME, "all"),
      "--set=projectedKubeconfig.tokenSecretName=",
    ]);
    assert.equal(ok, false);
    assert.match(output, /tokenSecretName must be set/);
  });

  it("is reached as a Service when the garden is the cluster of the pods", async () => {
    const { flags, podLabels } = await flagsOf("one-cluster");
    assert.equal(flags.webhookConfigMode, "service");
    assert.equal(podLabels[TO_GARDEN], undefined);
  });

  it("is scraped by the garden's Prometheus, which gets its alerts", async () => {
    const objects = await render(RUNTIME, [valuesOf(RUNTIME, "operator")]);
    const service = find(objects, "Service");
    const monitor = find(objects, "ServiceMonitor");
    const rule = find(objects, "PrometheusRule");
    for (const { metadata } of [monitor, rule]) assert.equal(metadata.labels?.["prometheus"], "garden");
    const selected = valueAt<Record<string, string>>(monitor, "spec.selector.matchLabels");
    for (const [key, value] of Object.entries(selected)) assert.equal(service.metadata.labels?.[key], value);
    const ports = valueAt<{ name: string; port: number }[]>(service, "spec.ports");
    const { port, metricRelabelings } = valueAt<{ port: string; metricRelabelings: object[] }>(
      monitor,
      "spec.endpoints.0",
    );
    assert.equal(ports.find(({ name }) => name === port)?.port, 8080);
    assert.deepEqual(rule.spec, parse(readFileSync(join(RUNTIME, "monitoring/rules.yaml"), "utf8")));
    // A ServiceMonitor's targets have the Service as job.
    const text = JSON.stringify(rule.spec);
    const jobs = new Set([...text.matchAll(/job=\\"([^"\\]+)/g)].map(([, name]) => name));
    assert.deepEqual([...jobs], [service.metadata.name]);
    const kept = new RegExp(valueAt<string>(metricRelabelings[0], "regex"));
    for (const name of text.match(/registry_spegel_[a-z_]+/g) ?? []) assert.match(name, kept);
  });

  it("asks for a Prometheus operator only where there is one, and its operator wants it", async () => {
    const kindsOf = async (file: string, ...args: string[]): Promise<string[]> => {
      const objects = await render(RUNTIME, [valuesOf(RUNTIME, file), ...args]);
      const kinds = objects.filter(({ apiVersion }) => apiVersion.startsWith("monitoring.coreos.com/"));
      assert.deepEqual(kinds.flatMap(judge), []);
      return kinds.map(({ kind }) => kind).sort();
    };
    const present = "--api-versions=monitoring.coreos.com/v1/ServiceMonitor";
    const both = ["PrometheusRule", "ServiceMonitor"];
    assert.deepEqual(await kindsOf("one-cluster"), [], "by hand, without these kinds");
    assert.deepEqual(await kindsOf("one-cluster", present), both);
    assert.deepEqual(await kindsOf("operator"), both, "its renderer knows no kinds");
    assert.deepEqual(await kindsOf("operator", "--set=metrics.enableAlerts=false"), ["ServiceMonitor"]);
    assert.deepEqual(await kindsOf("operator", "--set=metrics.enableScraping=false"), []);
    assert.deepEqual(await kindsOf("all", present), []);
    const labelled = await render(RUNTIME, [
      valuesOf(RUNTIME, "operator"),
      "--set=metrics.labels.prometheus=null,metrics.labels.release=kps",
    ]);
    const { labels = {} } = find(labelled, "ServiceMonitor").metadata;
    assert.deepEqual([labels["prometheus"], labels["release"]], [undefined, "kps"]);
  });

  it("may do what its tests do, and no more", async () => {
    const runtime = await render(RUNTIME, [valuesOf(RUNTIME, "operator")]);
    assert.deepEqual(rulesOf(find(runtime, "Role")), readRules(join(RUNTIME, "rbac/role.yaml")));
    assert.ok(!runtime.some(({ kind }) => CLUSTER_KINDS.includes(kind)), "nothing outside of its namespace");
    const garden = await render(APPLICATION, [valuesOf(APPLICATION, "operator")]);
    assert.deepEqual(
      rulesOf(find(garden, "ClusterRole")),
      readRules(join(APPLICATION, "rbac/cluster-role.yaml")),
    );
    assert.deepEqual(valueAt(find(garden, "ClusterRoleBinding"), "subjects"), [
      {
        kind: "ServiceAccount",
        name: "extension-admission-extension-registry-spegel",
        namespace: "kube-system",
      },
    ]);
    const alone = await render(APPLICATION, [valuesOf(APPLICATION, "one-cluster")]);
    assert.deepEqual(valueAt(find(alone, "ClusterRoleBinding"), "subjects"), [
      { kind: "ServiceAccount", name: ADMISSION_NAME, namespace: "mirror" },
    ]);
  });
});

describe("the example for gardener-operator", () => {
  const example = parse(
    readFileSync(join(ROOT, "example/operator-extension.yaml"), "utf8"),
  ) as KubernetesObject;
  const judgeExtension = (object: unknown): string[] =>
    operatorExtensionSchemas().flatMap((schema) => {
      const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
      const validate = ajv.compile(schema);
      return validate(object) ? [] : [ajv.errorsText(validate.errors)];
    });

  it("is what the API takes, and the judge knows what it does not take", () => {
    assert.deepEqual(judgeExtension(example), []);
    const [resource] = valueAt<object[]>(example, "spec.resources");
    for (const wrong of [{ autoEnabled: ["shoot"] }, { autoEnable: "shoot" }, { type: undefined }]) {
      const spec = { ...(example.spec as object), resources: [{ ...resource, ...wrong }] };
      const text = JSON.parse(JSON.stringify({ ...example, spec })) as unknown;
      assert.notDeepEqual(judgeExtension(text), [], JSON.stringify(wrong));
    }
  });

  it("enables the extension for Shoots, and for nothing that it is not made for", () => {
    const [resource, ...others] = valueAt<Record<string, unknown>[]>(example, "spec.resources");
    assert.deepEqual(others, []);
    assert.equal(resource?.["kind"], "Extension");
    assert.equal(resource?.["type"], EXTENSION_TYPE);
    assert.deepEqual(resource?.["autoEnable"], ["shoot"]);
    assert.deepEqual(resource?.["clusterCompatibility"], ["shoot"]);
    assert.equal(resource?.["workerlessSupported"], false);
  });

  it("has values that the charts take, with the same ports on both sides", async () => {
    const writeValues = async (name: string, values: object): Promise<string> => {
      const path = join(directory, `${name}.json`);
      await writeFile(path, JSON.stringify(values));
      return `--values=${path}`;
    };
    const own = valueAt<object>(example, "spec.deployment.extension.values");
    const admission = valueAt<object>(example, "spec.deployment.admission.values");
    const operator = { gardener: { virtualCluster: { enabled: true, namespace: "extension-x" } } };
    const extension = await render(EXTENSION, [await writeValues("extension", own)]);
    const runtime = await render(RUNTIME, [await writeValues("runtime", { ...admission, ...operator })]);
    const account = { name: "a", namespace: "kube-system" };
    const virtual = { gardener: { virtualCluster: { enabled: true, serviceAccount: account } } };
    const application = await render(APPLICATION, [await writeValues("app", { ...admission, ...virtual })]);
    assert.deepEqual([...extension, ...runtime, ...application].flatMap(judge), []);
    const ports = ({ container }: Deployment): string[] =>
      container.args.filter((each) => /-port=\d/.test(each));
    assert.deepEqual(ports(deploymentOf(extension)), ports(deploymentOf(runtime)));
    const { nodeImage, bootstrapperImage } = await readExtensionFlags({
      argv: deploymentOf(extension).container.args,
      environment: {},
    });
    assert.match(nodeImage, /@sha256:[0-9a-f]{64}$/);
    assert.ok(bootstrapperImage.includes(BOOTSTRAPPER_NAME));
  });
});

describe("the example without gardener-operator", () => {
  const read = (file: string): KubernetesObject[] =>
    parseObjects(readFileSync(join(ROOT, "example", file), "utf8"));
  const [deployment, registration, ...others] = read("controller-registration.yaml");

  it("registers what gardener-operator makes of its example", () => {
    assert.deepEqual(others, []);
    assert.deepEqual(
      [deployment, registration].map((each) => `${each?.apiVersion} ${each?.kind}`),
      ["core.gardener.cloud/v1 ControllerDeployment", "core.gardener.cloud/v1beta1 ControllerRegistration"],
    );
    const [operator] = read("operator-extension.yaml");
    const { helm: chart, values } = valueAt<{ helm: object; values: object }>(
      operator,
      "spec.deployment.extension",
    );
    assert.deepEqual(valueAt(deployment, "helm"), { ...chart, values });
    assert.deepEqual(valueAt(registration, "spec.resources"), valueAt(operator, "spec.resources"));
    assert.deepEqual(valueAt(registration, "spec.deployment.deploymentRefs"), [
      { name: deployment?.metadata.name },
    ]);
    assert.deepEqual(registration?.metadata.annotations, operator?.metadata.annotations);
  });
});
