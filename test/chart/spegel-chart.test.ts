// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { globSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import {
  cleanupSchema,
  cleanupWaitSchema,
  configurationSchema,
  registrySchema,
  validateCleanupSettings,
  validateCleanupWaitSettings,
  validateConfigurationSettings,
  validateRegistryConfiguration,
} from "#api/config";
import { loadSettings } from "#config";
import { dashboardQueries } from "../../hack/charts/dashboard.ts";
import { CUSTOM_KINDS } from "./custom-kinds.ts";
import { type Helm, type KubernetesObject, openHelm, parseObjects } from "./helm.ts";
import { type JudgeObject, openKubernetesSchemas } from "./kubernetes-schema.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const CHART = join(ROOT, "charts/spegel");
const IMAGE = "--set=image.repository=registry.example.com/spegel";
const WITH_VPA = "--api-versions=autoscaling.k8s.io/v1";

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly ports?: readonly {
    readonly name: string;
    readonly containerPort: number;
    readonly hostPort?: number;
  }[];
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[];
  readonly securityContext?: unknown;
  readonly startupProbe?: { readonly httpGet: { readonly path: string } };
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
}

interface PodSpec {
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly volumes?: readonly { readonly name: string }[];
  readonly nodeSelector?: unknown;
  readonly tolerations?: unknown;
  readonly imagePullSecrets?: unknown;
  readonly affinity?: unknown;
  readonly automountServiceAccountToken?: boolean;
}

interface Workload {
  readonly labels: Readonly<Record<string, string>>;
  readonly pod: PodSpec;
}

let helm: Helm;
let judge: JudgeObject;
before(async () => {
  [helm, judge] = await Promise.all([openHelm(), openKubernetesSchemas(CUSTOM_KINDS)]);
});

async function render(args: readonly string[], release?: string): Promise<KubernetesObject[]> {
  const { ok, output } = await helm.template(CHART, args, release);
  assert.ok(ok, output);
  return parseObjects(output);
}

function find(objects: readonly KubernetesObject[], kind: string, name: string): KubernetesObject {
  const found = objects.find((each) => each.kind === kind && each.metadata.name === name);
  assert.ok(found, `${kind} ${name} is not there`);
  return found;
}

function workloadsOf(objects: readonly KubernetesObject[]): Workload[] {
  return objects.flatMap((object) => {
    if (object.kind === "Pod") return [{ labels: object.metadata.labels ?? {}, pod: object.spec as PodSpec }];
    if (object.kind !== "DaemonSet") return [];
    const { template } = object.spec as {
      readonly template: {
        readonly metadata: { readonly labels: Record<string, string> };
        readonly spec: PodSpec;
      };
    };
    return [{ labels: template.metadata.labels, pod: template.spec }];
  });
}

function containersOf({ pod }: Workload): Container[] {
  return [...(pod.initContainers ?? []), ...pod.containers];
}

function matches(
  selector: Readonly<Record<string, string>>,
  labels: Readonly<Record<string, string>>,
): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}

const COMMANDS = {
  registry: { schema: registrySchema, validate: validateRegistryConfiguration },
  configuration: { schema: configurationSchema, validate: validateConfigurationSettings },
  cleanup: { schema: cleanupSchema, validate: validateCleanupSettings },
  "cleanup-wait": { schema: cleanupWaitSchema, validate: validateCleanupWaitSettings },
} as const;

/** The settings that the program reads from a container's arguments, with $(NODE_IP) as Kubernetes puts it in. */
async function settingsOf(container: Container, nodeAddress: string): Promise<Record<string, unknown>> {
  const [command = "", ...argv] = (container.args ?? []).map((each) =>
    each.replace("$(NODE_IP)", nodeAddress),
  );
  const { schema, validate } = COMMANDS[command as keyof typeof COMMANDS];
  return await loadSettings({ properties: schema.properties, validate }, { argv, environment: {} });
}

describe("each file of values", () => {
  for (const file of readdirSync(join(CHART, "ci"))) {
    const values = `--values=${join(CHART, "ci", file)}`;

    it(`lints without a warning: ${file}`, async () => {
      const { ok, output } = await helm.lint(CHART, [values]);
      assert.ok(ok, output);
      assert.doesNotMatch(output, /\[(WARNING|ERROR)\]/);
    });

    it(`gives objects that the API server's schemas accept: ${file}`, async () => {
      const objects = await render([values, WITH_VPA]);
      assert.ok(objects.length >= 5);
      assert.deepEqual(objects.flatMap(judge), []);
      const keys = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`);
      assert.equal(new Set(keys).size, keys.length, "two objects have one name");
      for (const { metadata } of objects) assert.ok(metadata.namespace);
    });

    it(`holds together: ${file}`, async () => {
      const objects = await render([values]);
      const workloads = workloadsOf(objects);
      for (const workload of workloads) {
        const volumes = (workload.pod.volumes ?? []).map(({ name }) => name);
        assert.equal(new Set(volumes).size, volumes.length);
        assert.equal(workload.pod.automountServiceAccountToken, false);
        for (const container of containersOf(workload)) {
          const mounts = container.volumeMounts ?? [];
          for (const { name } of mounts)
            assert.ok(volumes.includes(name), `${container.name} mounts ${name}`);
          assert.equal(new Set(mounts.map(({ mountPath }) => mountPath)).size, mounts.length);
        }
      }
      for (const { kind, spec, metadata } of objects) {
        if (kind !== "Service") continue;
        const { selector, ports = [] } = spec as {
          readonly selector: Record<string, string>;
          readonly ports?: readonly { readonly targetPort: string }[];
        };
        const selected = workloads.filter(({ labels }) => matches(selector, labels));
        assert.equal(selected.length, 1, `${metadata.name} selects ${selected.length} workloads`);
        const names = selected
          .flatMap(containersOf)
          .flatMap((each) => (each.ports ?? []).map(({ name }) => name));
        for (const { targetPort } of ports) assert.ok(names.includes(targetPort));
      }
    });

    it(`starts programs with settings that they take: ${file}`, async () => {
      const own = workloadsOf(await render([values]))
        .flatMap(containersOf)
        .filter(({ image }) => /\/spegel[:@]/.test(image));
      assert.ok(own.length >= 1);
      for (const container of own) await settingsOf(container, "10.0.0.7");
    });
  }
});

describe("the judge of objects", () => {
  it("refuses unknown fields, wrong types and unknown kinds", async () => {
    const daemonSet = find(await render([IMAGE]), "DaemonSet", "spegel");
    assert.deepEqual(judge(daemonSet), []);
    const withSpec = (more: object): KubernetesObject => ({
      ...daemonSet,
      spec: { ...(daemonSet.spec as object), ...more },
    });
    assert.match(judge(withSpec({ replicas: 3 })).join(), /replicas/);
    assert.match(judge(withSpec({ revisionHistoryLimit: "ten" })).join(), /revisionHistoryLimit.*integer/);
    assert.match(judge(withSpec({ selector: undefined })).join(), /selector/);
    assert.match(judge({ ...daemonSet, apiVersion: "apps/v2" }).join(), /no kind/);
    const [monitor] = (await render([IMAGE, "--set=serviceMonitor.enabled=true"])).filter(
      ({ kind }) => kind === "ServiceMonitor",
    );
    assert.ok(monitor);
    assert.match(
      judge({ ...monitor, spec: { ...(monitor.spec as object), endpoint: [] } }).join(),
      /endpoint/,
    );
  });
});

describe("the daemon", () => {
  it("asks the same values of containerd and of the registry", async () => {
    const values = `--values=${join(CHART, "ci/all-values.yaml")}`;
    const [daemon] = workloadsOf(await render([values]));
    assert.ok(daemon);
    const [prepare, configuration, registry] = containersOf(daemon);
    assert.ok(prepare && configuration && registry);
    assert.equal(prepare.name, "prepare");
    const { mirrorTargets, ...configured } = await settingsOf(configuration, "fd00::7");
    assert.deepEqual(mirrorTargets, ["http://fd00::7:30021", "http://fd00::7:30020", "http://10.0.0.9:5000"]);
    assert.deepEqual(configured, {
      logLevel: "DEBUG",
      containerdRegistryConfigPath: "/etc/containerd/certs.d",
      mirroredRegistries: ["https://docker.io", "https://quay.io"],
      resolveTags: false,
      prependExisting: true,
    });
    const settings = await settingsOf(registry, "fd00::7");
    assert.deepEqual(settings["registryFilters"], [":latest$", "^docker\\.io/library/.*'\"x"]);
    assert.deepEqual(settings["mirroredRegistries"], configured["mirroredRegistries"]);
    assert.equal(settings["dnsBootstrapDomain"], "mirror-bootstrap.mirrors.svc.cluster.local.");
    assert.equal(settings["dataDir"], "/var/lib/spegel");
  });

  it("has Spegel's defaults, and no more rights than it needs", async () => {
    const objects = await render([IMAGE]);
    const [daemon] = workloadsOf(objects);
    assert.ok(daemon);
    const [configuration, registry] = containersOf(daemon);
    assert.ok(configuration && registry);
    assert.deepEqual((await settingsOf(configuration, "10.0.0.7"))["mirrorTargets"], [
      "http://10.0.0.7:30020",
    ]);
    assert.deepEqual(await settingsOf(registry, "10.0.0.7"), {
      logLevel: "INFO",
      store: "containerd",
      bootstrapKind: "dns",
      dnsBootstrapDomain: "spegel-bootstrap.mirror.svc.cluster.local.",
      leaderElectionNamespace: "spegel",
      leaderElectionName: "spegel-leader-election",
      staticBootstrapPeers: [],
      metricsAddr: ":9090",
      containerdSock: "/run/containerd/containerd.sock",
      containerdNamespace: "k8s.io",
      containerdContentPath: "/var/lib/containerd/io.containerd.content.v1.content",
      dataDir: "/var/lib/spegel",
      routerAddr: ":5001",
      registryAddr: ":5000",
      mirroredRegistries: [],
      registryFilters: [],
      mirrorResolveTimeout: "20ms",
      mirrorResolveRetries: 3,
      debugWebEnabled: true,
    });
    for (const workload of workloadsOf(objects)) {
      for (const { securityContext } of containersOf(workload)) {
        assert.deepEqual(securityContext, {
          readOnlyRootFilesystem: true,
          allowPrivilegeEscalation: false,
          runAsUser: 0,
          runAsGroup: 0,
          capabilities: { drop: ["ALL"] },
        });
      }
    }
    assert.equal(registry.startupProbe?.httpGet.path, "/livez", "a lonely node must not be restarted");
    assert.deepEqual(
      registry.env?.find(({ name }) => name === "MALLOC_ARENA_MAX"),
      { name: "MALLOC_ARENA_MAX", value: "1" },
      "as in the unit of a Gardener node",
    );
  });

  it("keeps Spegel 0.7's host port unless the Service alone is wanted", async () => {
    const values = `--values=${join(CHART, "ci/spegel-0.7-values.yaml")}`;
    for (const [more, targets, hostPort] of [
      ["false", ["http://10.0.0.7:30020", "http://10.0.0.7:30021"], 30020],
      ["true", ["http://10.0.0.7:30021"], undefined],
    ] as const) {
      const set = `--set=service.registry.usePreferSameNodeTrafficDistribution=${more}`;
      const [daemon] = workloadsOf(await render([values, set]));
      assert.ok(daemon);
      const [configuration, registry] = containersOf(daemon);
      assert.ok(configuration && registry);
      assert.deepEqual((await settingsOf(configuration, "10.0.0.7"))["mirrorTargets"], targets);
      assert.equal(registry.ports?.[0]?.hostPort, hostPort);
    }
  });

  it("prefers the pod of the same node, one way or the other", async () => {
    const spec = async (...args: string[]): Promise<unknown> =>
      find(await render([IMAGE, ...args]), "Service", "spegel-registry").spec;
    const preferred = (await spec()) as Record<string, unknown>;
    assert.equal(preferred["trafficDistribution"], "PreferSameNode");
    assert.equal(preferred["internalTrafficPolicy"], undefined);
    const local = (await spec("--set=service.registry.internalTrafficLocal=true")) as Record<string, unknown>;
    assert.equal(local["trafficDistribution"], undefined);
    assert.equal(local["internalTrafficPolicy"], "Local");
  });

  it("is found before it is ready", async () => {
    const spec = find(await render([IMAGE]), "Service", "spegel-bootstrap").spec as Record<string, unknown>;
    assert.equal(spec["publishNotReadyAddresses"], true);
    assert.equal(spec["clusterIP"], "None");
  });

  it("runs for one Lease on demand, with a right to that alone and a token in that container alone", async () => {
    const objects = await render([`--values=${join(CHART, "ci/kubernetes-values.yaml")}`]);
    const name = "spegel-leader-election";
    const [daemon, ...others] = workloadsOf(objects);
    assert.ok(daemon);
    const [configuration, registry] = containersOf(daemon);
    assert.ok(configuration && registry);
    const settings = await settingsOf(registry, "10.0.0.7");
    assert.equal(settings["bootstrapKind"], "kubernetes");
    assert.equal(settings["leaderElectionNamespace"], "mirrors");
    assert.equal(settings["leaderElectionName"], name);
    assert.equal(settings["dnsBootstrapDomain"], undefined);
    const mounts = (container: Container): unknown[] =>
      (container.volumeMounts ?? []).filter(({ mountPath }) => mountPath.includes("serviceaccount"));
    assert.equal(mounts(registry).length, 1);
    for (const container of [configuration, ...others.flatMap(containersOf)])
      assert.deepEqual(mounts(container), [], container.name);
    const leases = { apiGroups: ["coordination.k8s.io"], resources: ["leases"] };
    assert.deepEqual((find(objects, "Role", name) as unknown as { readonly rules: unknown }).rules, [
      { ...leases, verbs: ["create"] },
      { ...leases, resourceNames: [name], verbs: ["get", "update"] },
    ]);
    const { roleRef, subjects } = find(objects, "RoleBinding", name) as unknown as Record<string, unknown>;
    assert.deepEqual(roleRef, { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name });
    assert.deepEqual(subjects, [{ kind: "ServiceAccount", name: "spegel", namespace: "mirrors" }]);
    assert.ok(!objects.some(({ metadata }) => metadata.name === "spegel-bootstrap"));
    const plain = await render([IMAGE]);
    assert.ok(!plain.some(({ kind }) => /^(Cluster)?Role/.test(kind)), "by default it has no right at all");
  });
});

describe("the clean-up", () => {
  it("runs where the daemon ran, and can be scheduled and pulled there", async () => {
    const objects = await render([`--values=${join(CHART, "ci/all-values.yaml")}`]);
    const [daemon, cleanup, wait] = workloadsOf(objects).map(({ pod }) => pod);
    assert.ok(daemon && cleanup && wait);
    for (const key of ["nodeSelector", "tolerations", "imagePullSecrets", "affinity"] as const) {
      assert.ok(daemon[key], key);
      assert.deepEqual(cleanup[key], daemon[key], key);
      if (key !== "affinity") assert.deepEqual(wait[key], daemon[key], key);
    }
    const hooks = objects.filter(({ metadata }) => metadata.annotations?.["helm.sh/hook"] !== undefined);
    assert.deepEqual(
      new Map(hooks.map(({ kind, metadata }) => [kind, metadata.annotations?.["helm.sh/hook-weight"]])),
      new Map([
        ["DaemonSet", "0"],
        ["Service", "0"],
        ["Pod", "1"],
      ]),
    );
  });

  it("waits for the Service of its own DaemonSet", async () => {
    const objects = await render([IMAGE, "--set=service.cleanup.port=8123"]);
    const pods = workloadsOf(objects).slice(1);
    const [cleanup, wait] = pods.flatMap(containersOf);
    assert.ok(cleanup && wait);
    assert.equal((await settingsOf(cleanup, ""))["addr"], ":8123");
    const { probeEndpoint } = await settingsOf(wait, "");
    assert.equal(probeEndpoint, "spegel-cleanup.mirror.svc.cluster.local.:8123");
    find(objects, "Service", "spegel-cleanup");
  });

  it("is not there when containerd was not configured", async () => {
    const objects = await render([IMAGE, "--set=spegel.containerdMirrorAdd=false"]);
    assert.deepEqual(workloadsOf(objects).length, 1);
    assert.equal(workloadsOf(objects)[0]?.pod.initContainers, undefined);
  });
});

describe("bad values", () => {
  for (const [what, args, message] of [
    ["no image", [], /image\.repository must be set/],
    ["an unknown key", [IMAGE, "--set=spegel.mirrorTimeout=1s"], /mirrorTimeout/],
    [
      "a port out of range",
      [IMAGE, "--set=service.router.port=70000"],
      /service\/router\/port|service\.router\.port/,
    ],
    ["a word for a flag", [IMAGE, "--set-string=spegel.resolveTags=yes"], /resolveTags/],
    ["a digest that is none", [IMAGE, "--set=image.digest=latest"], /digest/],
    ["an unknown dashboard mode", [IMAGE, "--set=grafanaDashboard.mode=Else"], /mode/],
    [
      "a dashboard for no Grafana",
      [IMAGE, "--set=grafanaDashboard.enabled=true,grafanaDashboard.mode=GrafanaOperator"],
      /matchLabels must name/,
    ],
    ["a relative path", [IMAGE, "--set=spegel.containerdSock=run/containerd.sock"], /containerdSock/],
  ] as const) {
    it(`are refused with a message that names them: ${what}`, async () => {
      const { ok, output } = await helm.template(CHART, args);
      assert.equal(ok, false);
      assert.match(output, message);
    });
  }

  it("do not come from long release names", async () => {
    const objects = await render([IMAGE], "a-very-long-release-name-that-has-fifty-three-letters");
    for (const { metadata } of objects) assert.ok(metadata.name.length <= 63, metadata.name);
    assert.deepEqual(objects.flatMap(judge), []);
  });
});

describe("what goes with the chart", () => {
  it("has the version of the project", () => {
    const chart = parse(readFileSync(join(CHART, "Chart.yaml"), "utf8")) as Record<string, unknown>;
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
      readonly version: string;
    };
    assert.equal(chart["version"], version);
    assert.equal(chart["appVersion"], version);
  });

  it("asks in the dashboard for metrics that the daemon has", async () => {
    const sources = globSync("{pkg,cmd/spegel}/**/*.ts", {
      cwd: ROOT,
      exclude: ["pkg/extension/objects/*"],
    }).filter((file) => !/test/.test(file));
    const known = new Set(
      sources.flatMap((file) => {
        const text = readFileSync(join(ROOT, file), "utf8");
        return [...text.matchAll(/"((?:spegel|http)_[a-z_]+)"/g)].map((match) => match[1] as string);
      }),
    );
    const used = new Set(
      dashboardQueries().flatMap((query) => query.match(/\b(?:spegel|http)_[a-z_]+/g) ?? []),
    );
    assert.ok(used.size >= 15);
    for (const name of used) assert.ok(known.has(name.replace(/_bucket$/, "")), `${name} is no metric`);
    const objects = await render([IMAGE, "--set=grafanaDashboard.enabled=true"]);
    const { data } = find(objects, "ConfigMap", "spegel-dashboard");
    const dashboard = JSON.parse(data?.["spegel.json"] ?? "") as {
      readonly panels: readonly {
        readonly id: number;
        readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
        readonly targets: readonly { readonly expr: string }[];
      }[];
    };
    assert.ok(dashboard.panels.length >= 10);
    const cells = dashboard.panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, at) => `${x + (at % w)},${y + Math.floor(at / w)}`),
    );
    assert.equal(new Set(cells).size, cells.length, "two panels overlap");
    for (const { expr } of dashboard.panels.flatMap(({ targets }) => targets)) {
      assert.equal(expr.split("(").length, expr.split(")").length, expr);
      assert.equal(expr.split("{").length, expr.split("}").length, expr);
    }
  });
});
