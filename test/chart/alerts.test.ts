// SPDX-License-Identifier: Apache-2.0
/** The alerts of a Shoot, a seed and a garden, judged and evaluated by Prometheus' own tool. */
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { monitoringObjects } from "#extension";
import { valueAt } from "#kit/api-server";
import { shootWebhook } from "../../cmd/admission/shoot-webhook.ts";
import { type ExpectedAlert, openPromtool, type Promtool, type RuleScenario } from "./promtool.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const DAY_MINUTES = 24 * 60;

interface Rule {
  readonly alert?: string;
  readonly expr: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: { readonly summary: string; readonly description: string };
}

interface Groups {
  readonly groups: readonly { readonly rules: readonly Rule[] }[];
}

type Series = Readonly<Record<string, string>>;

/** What a test changes of the series of a healthy day, and what fires then. */
interface Trouble {
  readonly change: (healthy: Series) => Series;
  readonly atMinutes: number;
  /** Labels of the alerts that fire, and words in their description that are filled in. */
  readonly firing: readonly { readonly labels: Series; readonly filledIn?: Series }[];
  /** Alerts that come along. */
  readonly others?: readonly string[];
}

const rulesOf = ({ groups }: Groups): readonly Rule[] => groups.flatMap(({ rules }) => rules);
const alertsOf = (groups: Groups): string[] => rulesOf(groups).flatMap(({ alert }) => alert ?? []);

function expected(groups: Groups, name: string, firing: Trouble["firing"]): ExpectedAlert[] {
  const rule = rulesOf(groups).find(({ alert }) => alert === name);
  assert.ok(rule?.annotations, `no alert ${name}`);
  const { summary, description } = rule.annotations;
  return firing.map(({ labels, filledIn = {} }) => ({
    labels: { ...labels, ...rule.labels },
    annotations: {
      summary,
      description: description.replace(
        /\{\{ (?:\$labels\.)?([^}]+?) \}\}/g,
        (_, key: string) => filledIn[key] ?? labels[key] ?? `no ${key}`,
      ),
    },
  }));
}

function without(series: Series, pattern: RegExp): Series {
  return Object.fromEntries(Object.entries(series).filter(([key]) => !pattern.test(key)));
}

/** Other values for the series whose name and labels match. */
function replaced(series: Series, pattern: RegExp, values: string): Series {
  const entries = Object.entries(series);
  assert.ok(
    entries.some(([key]) => pattern.test(key)),
    String(pattern),
  );
  return Object.fromEntries(entries.map(([key, value]) => [key, pattern.test(key) ? values : value]));
}

/** Or why there is none: only Debian's machines have the package. */
let promtool: Promtool | Error;
before(async () => {
  promtool = await openPromtool({ signal: AbortSignal.timeout(200_000) }).catch((error: Error) => error);
});
after(async () => {
  if (!(promtool instanceof Error)) await promtool[Symbol.asyncDispose]();
});

/** A test that needs Prometheus' tool. */
function judged(name: string, run: (tool: Promtool) => Promise<void>): void {
  it(name, async (t) => {
    if (promtool instanceof Error) return t.skip(promtool.message);
    await run(promtool);
  });
}

function stories(groups: Groups, healthy: Series, troubles: Readonly<Record<string, Trouble>>): void {
  judged("are rules that Prometheus takes", async (tool) => {
    const { ok, output } = await tool.check(groups);
    assert.ok(ok, output);
    assert.match(output, new RegExp(`SUCCESS: ${rulesOf(groups).length} rules found`));
    const broken = { groups: [{ name: "broken", rules: [{ alert: "A", expr: "sum(" }] }] };
    assert.equal((await tool.check(broken)).ok, false, "it would say so");
  });

  judged("are silent while all is well", async (tool) => {
    const firing = Object.fromEntries(alertsOf(groups).map((name) => [name, []]));
    const story: RuleScenario = { name: "healthy", series: healthy, atMinutes: DAY_MINUTES, firing };
    const { ok, output } = await tool.test(groups, [story]);
    assert.ok(ok, output);
  });

  it("each have their trouble here", () => {
    assert.deepEqual(Object.keys(troubles).sort(), alertsOf(groups).sort());
  });

  for (const [name, trouble] of Object.entries(troubles)) {
    judged(`fire for their trouble alone: ${name}`, async (tool) => {
      const silent = alertsOf(groups).filter((each) => each !== name && !trouble.others?.includes(each));
      const firing = {
        ...Object.fromEntries(silent.map((each) => [each, []])),
        [name]: expected(groups, name, trouble.firing),
      };
      const series = trouble.change(healthy);
      const { ok, output } = await tool.test(groups, [
        { name, series, atMinutes: trouble.atMinutes, firing },
      ]);
      assert.ok(ok, output);
    });
  }
}

describe("the alerts of a Shoot", () => {
  const groups = valueAt<Groups>(
    monitoringObjects("shoot--foo--bar").find(({ kind }) => kind === "PrometheusRule"),
    "spec",
  );
  const nodeSeries = (node: string): Series => {
    const labels = `job="registry-spegel", pod="node-exporter-${node}", node="${node}"`;
    return {
      [`up{${labels}}`]: "1x1440",
      [`spegel_store_connected{${labels}}`]: "1x1440",
      [`spegel_swarm_peers{${labels}}`]: "1x1440",
      [`spegel_corrupt_contents{${labels}}`]: "0x1440",
      [`spegel_images_without_layers{${labels}}`]: "0x1440",
      [`node_textfile_mtime_seconds{${labels}, file="/textfile-collector/spegel.prom"}`]: "0+60x1440",
      [`spegel_mirror_requests_total{${labels}, registry="ghcr.io", cache="hit"}`]: "0+1x1440",
      [`spegel_mirror_requests_total{${labels}, registry="ghcr.io", cache="miss"}`]: "0+1x1440",
    };
  };
  const bootstrapper = 'job="registry-spegel-bootstrapper", pod="b"';
  const healthy: Series = {
    ...nodeSeries("a"),
    ...nodeSeries("b"),
    [`up{${bootstrapper}}`]: "1x1440",
    [`spegel_bootstrapper_handshake_failures_total{${bootstrapper}}`]: "0+1x1440",
    [`spegel_bootstrapper_requests_total{${bootstrapper}, code="200"}`]: "0+1x1440",
  };
  const nodeA = { job: "registry-spegel", pod: "node-exporter-a", node: "a" };

  stories(groups, healthy, {
    RegistrySpegelBootstrapperDown: {
      change: (series) => replaced(series, /^up\{.*bootstrapper/, "1x100 0x1400"),
      atMinutes: 120,
      firing: [{ labels: {} }],
    },
    RegistrySpegelNodesRefused: {
      change: (series) => without(series, /^spegel_bootstrapper_requests_total/),
      atMinutes: 240,
      firing: [{ labels: { job: "registry-spegel-bootstrapper", pod: "b" } }],
    },
    RegistrySpegelNodeDown: {
      change: (series) => replaced(series, /^spegel_.*node="a"|^node_.*node="a"/, "1x100 stale"),
      atMinutes: 120,
      firing: [{ labels: nodeA }],
    },
    RegistrySpegelNodeUnsteady: {
      // One minute there, two minutes gone, as a crash with a slow start looks.
      change: (series) => replaced(series, /^spegel_store_connected.*node="a"/, "1 stale stale ".repeat(80)),
      atMinutes: 180,
      firing: [{ labels: { pod: nodeA.pod, node: "a" } }],
      others: ["RegistrySpegelNodeDown"],
    },
    RegistrySpegelMetricsStale: {
      change: (series) => replaced(series, /^node_textfile.*node="a"/, "0+60x100 6000x1340"),
      atMinutes: 150,
      firing: [{ labels: { ...nodeA, file: "/textfile-collector/spegel.prom" } }],
    },
    RegistrySpegelWithoutContainerd: {
      change: (series) => replaced(series, /^spegel_store_connected.*node="a"/, "1x100 0x1340"),
      atMinutes: 120,
      firing: [{ labels: nodeA }],
    },
    RegistrySpegelNodeAlone: {
      change: (series) => replaced(series, /^spegel_swarm_peers.*node="a"/, "0x1440"),
      atMinutes: 120,
      firing: [{ labels: nodeA }],
    },
    RegistrySpegelCorruptContent: {
      change: (series) => replaced(series, /^spegel_corrupt_contents.*node="a"/, "0x100 1x1340"),
      atMinutes: 120,
      firing: [{ labels: nodeA }],
    },
    RegistrySpegelLayersDiscarded: {
      change: (series) => replaced(series, /^spegel_images_without_layers.*node="a"/, "0x60 7x1380"),
      atMinutes: 180,
      firing: [{ labels: nodeA, filledIn: { $value: "7" } }],
    },
    RegistrySpegelWithoutHits: {
      change: (series) => without(series, /cache="hit"/),
      atMinutes: 600,
      firing: [{ labels: {} }],
    },
  });

  judged("do not miss hits, or others, in a Shoot with one node", async (tool) => {
    const alone = replaced(without(healthy, /node="b"|cache="hit"/), /^spegel_swarm_peers/, "0x1440");
    const firing = Object.fromEntries(alertsOf(groups).map((name) => [name, []]));
    const { ok, output } = await tool.test(groups, [
      { name: "one node", series: alone, atMinutes: 600, firing },
    ]);
    assert.ok(ok, output);
  });
});

const readRules = (chart: string): Groups =>
  parse(readFileSync(join(ROOT, "charts", chart, "monitoring/rules.yaml"), "utf8")) as Groups;

/** Tests of rules that are kept as a file beside the program whose metrics they are about. */
function rulesOfProgram(groups: Groups, folders: readonly string[]): void {
  it("are about metrics that the program has", () => {
    const sources = globSync(`{${folders.join(",")}}/**/*.ts`, { cwd: ROOT, exclude: ["**/*.test.ts"] });
    const known = new Set(
      sources.flatMap((file) =>
        [...readFileSync(join(ROOT, file), "utf8").matchAll(/"(registry_spegel_[a-z_]+)"/g)].map(
          ([, name]) => name,
        ),
      ),
    );
    const used = rulesOf(groups).flatMap(({ expr }) => expr.match(/registry_spegel_[a-z_]+/g) ?? []);
    assert.ok(new Set(used).size >= 4);
    for (const name of used)
      assert.ok(known.has(name.replace(/_(count|bucket)$/, "")), `${name} is no metric`);
  });

  it("say what to do", () => {
    for (const { alert, annotations } of rulesOf(groups))
      assert.match(annotations?.description ?? "", /Look at/, String(alert));
  });
}

const EXPIRATION = "registry_spegel_webhook_certificate_expiration_timestamp_seconds";
const DURATION = "registry_spegel_webhook_duration_seconds_bucket";
const REGISTRATION = "registry_spegel_webhook_registration_timestamp_seconds";

describe("the alerts of a seed", () => {
  const groups = readRules("gardener-extension-registry-spegel");
  const app = 'app_kubernetes_io_name="gardener-extension-registry-spegel"';
  const healthy: Series = {
    [`up{${app}, pod="a"}`]: "1x1440",
    [`up{${app}, pod="b"}`]: "1x1440",
    [`registry_spegel_ready{${app}, pod="a"}`]: "1x1440",
    [`registry_spegel_ready{${app}, pod="b"}`]: "1x700 0x1 1x739",
    [`${EXPIRATION}{${app}, pod="a"}`]: `${30 * 86_400}x1440`,
    [`${EXPIRATION}{${app}, pod="b"}`]: `${30 * 86_400}x1440`,
    [`${REGISTRATION}{${app}, pod="a"}`]: "0+60x1440",
    [`${REGISTRATION}{${app}, pod="b"}`]: "0x1440",
    [`registry_spegel_extension_run_duration_seconds_count{${app}, pod="a"}`]: "0x1440",
    [`registry_spegel_extension_runs_total{${app}, pod="a", result="success"}`]: "0+1x1440",
    [`registry_spegel_extension_runs_total{${app}, pod="a", result="error"}`]: "0+0.1x1440",
    [`registry_spegel_osc_reviews_total{${app}, pod="a", result="allowed"}`]: "0+5x1440",
    [`registry_spegel_osc_reviews_total{${app}, pod="a", result="denied"}`]: "0+1x1440",
    [`${DURATION}{${app}, pod="a", le="0.01"}`]: "0+5x1440",
    [`${DURATION}{${app}, pod="a", le="1"}`]: "0+6x1440",
    [`${DURATION}{${app}, pod="a", le="2.5"}`]: "0+6x1440",
    [`${DURATION}{${app}, pod="a", le="+Inf"}`]: "0+6x1440",
  };

  stories(groups, healthy, {
    RegistrySpegelExtensionDown: {
      // They answer, but have no certificate to serve with.
      change: (series) => replaced(series, /^registry_spegel_ready/, "1x100 0x1340"),
      atMinutes: 120,
      firing: [{ labels: {} }],
    },
    RegistrySpegelExtensionWithoutLeader: {
      change: (series) =>
        replaced(without(series, /run_duration/), /^registry_spegel_webhook_registration/, "0x1440"),
      atMinutes: 60,
      firing: [{ labels: { app_kubernetes_io_name: "gardener-extension-registry-spegel" } }],
    },
    RegistrySpegelWebhookCertificateExpires: {
      change: (series) => replaced(series, /expiration.*pod="b"/, `${6 * 86_400}x1440`),
      atMinutes: DAY_MINUTES,
      firing: [{ labels: {}, filledIn: { "$value | humanizeDuration": "5d 0h 0m 0s" } }],
    },
    RegistrySpegelWebhookNotRegistered: {
      // There is a leader, but it never could.
      change: (series) => replaced(series, /registration/, "0x1440"),
      atMinutes: 120,
      firing: [{ labels: {} }],
    },
    RegistrySpegelReconcileErrors: {
      change: (series) => replaced(series, /result="error"/, "0+3x1440"),
      atMinutes: 180,
      firing: [{ labels: {} }],
    },
    RegistrySpegelWebhookFails: {
      change: (series) => ({
        ...series,
        [`registry_spegel_osc_reviews_total{${app}, pod="a", result="failed"}`]: "0+1x1440",
      }),
      atMinutes: 60,
      firing: [{ labels: {} }],
    },
    RegistrySpegelWebhookSlow: {
      // Half of the answers take between one second and two and a half.
      change: (series) => replaced(series, /duration_seconds_bucket.*le="(0.01|1)"/, "0+3x1440"),
      atMinutes: 60,
      firing: [{ labels: {}, filledIn: { "$value | humanizeDuration": "2.47s" } }],
    },
  });

  judged("tell of an extension that is not scraped at all", async (tool) => {
    const [name, silent] = ["RegistrySpegelExtensionDown", "RegistrySpegelWebhookNotRegistered"];
    const firing = { [name]: expected(groups, name, [{ labels: {} }]), [silent]: [] };
    const { ok, output } = await tool.test(groups, [
      { name: "gone", series: { 'up{job="other"}': "1x1440" }, atMinutes: 60, firing },
    ]);
    assert.ok(ok, output);
  });

  rulesOfProgram(groups, ["cmd/extension", "pkg/extension", "pkg/program", "pkg/credentials"]);
});

describe("the alerts of a garden", () => {
  const groups = readRules("gardener-extension-registry-spegel-admission/runtime");
  const job = "gardener-extension-registry-spegel-admission";
  const name = "validation.registry-spegel.extensions.gardener.cloud";
  const pod = (of: string): string => `job="${job}", pod="${of}"`;
  const calls = (le: string): string =>
    `apiserver_admission_webhook_admission_duration_seconds_bucket{job="gardener-apiserver", name="${name}", le="${le}"}`;
  const rejections = (of: string, error: string): string =>
    `apiserver_admission_webhook_rejection_count{job="gardener-apiserver", name="${of}", error_type="${error}"}`;
  const healthy: Series = {
    ...Object.fromEntries(
      ["a", "b"].flatMap((each) => [
        [`up{${pod(each)}}`, "1x1440"],
        // A roll-out takes each away for a while.
        [`registry_spegel_ready{${pod(each)}}`, each === "a" ? "1x600 0x3 1x837" : "1x610 0x3 1x827"],
        [`${EXPIRATION}{${pod(each)}}`, `${30 * 86_400}x1440`],
        [`${REGISTRATION}{${pod(each)}}`, each === "a" ? "0+60x1440" : "0x1440"],
        [`registry_spegel_admission_reviews_total{${pod(each)}, result="allowed"}`, "0+50x1440"],
        [`registry_spegel_admission_reviews_total{${pod(each)}, result="denied"}`, "0+1x1440"],
      ]),
    ),
    // Shoots that are denied, and the trouble of others.
    [rejections(name, "no_error")]: "0+1x1440",
    [rejections("other.extensions.gardener.cloud", "calling_webhook_error")]: "0+9x1440",
    [calls("0.1")]: "0+100x1440",
    [calls("2.5")]: "0+100x1440",
    [calls("10")]: "0+100x1440",
    [calls("+Inf")]: "0+100x1440",
  };

  stories(groups, healthy, {
    RegistrySpegelAdmissionDown: {
      change: (series) => replaced(series, /^registry_spegel_ready/, "1x100 0x1340"),
      atMinutes: 110,
      firing: [{ labels: {} }],
    },
    RegistrySpegelAdmissionReplicaNotReady: {
      change: (series) =>
        replaced(
          replaced(without(series, /ready.*pod="a"/), /^up.*pod="a"/, "1x100 0x1340"),
          /ready.*pod="b"/,
          "1x1440",
        ),
      atMinutes: 120,
      firing: [{ labels: { job, pod: "a" } }],
    },
    RegistrySpegelAdmissionCertificateExpires: {
      // This replica cannot read the new one.
      change: (series) => replaced(series, /expiration.*pod="b"/, `${6 * 86_400}x1440`),
      atMinutes: DAY_MINUTES,
      firing: [{ labels: {}, filledIn: { "$value | humanizeDuration": "5d 0h 0m 0s" } }],
    },
    RegistrySpegelAdmissionNotRegistered: {
      // Nobody leads any more: the next replicas begin with 0.
      change: (series) => replaced(series, /registration.*pod="a"/, "0+60x100 0x1340"),
      atMinutes: 180,
      firing: [{ labels: {} }],
    },
    RegistrySpegelAdmissionFails: {
      change: (series) => ({
        ...series,
        [`registry_spegel_admission_reviews_total{${pod("a")}, result="failed"}`]: "0+1x1440",
      }),
      atMinutes: 60,
      firing: [{ labels: {} }],
    },
    RegistrySpegelAdmissionUnreachable: {
      change: (series) => ({ ...series, [rejections(name, "calling_webhook_error")]: "0+1x1440" }),
      atMinutes: 40,
      firing: [{ labels: {} }],
    },
    RegistrySpegelAdmissionSlow: {
      change: (series) => replaced(series, /le="(0\.1|2\.5)"/, "0+90x1440"),
      atMinutes: 60,
      firing: [{ labels: {} }],
    },
  });

  judged(
    "tell of a replica that answers but does not serve, and of an admission that is gone",
    async (tool) => {
      const [replica, down] = ["RegistrySpegelAdmissionReplicaNotReady", "RegistrySpegelAdmissionDown"];
      const unready = replaced(healthy, /ready.*pod="b"/, "1x100 0x1340");
      const labels = { job, pod: "b" };
      const { ok, output } = await tool.test(groups, [
        {
          name: "one unready",
          series: unready,
          atMinutes: 120,
          firing: { [replica]: expected(groups, replica, [{ labels }]), [down]: [] },
        },
        {
          name: "gone",
          series: { 'up{job="other"}': "1x1440" },
          atMinutes: 60,
          firing: { [replica]: [], [down]: expected(groups, down, [{ labels: {} }]) },
        },
      ]);
      assert.ok(ok, output);
    },
  );

  rulesOfProgram(groups, ["cmd/admission", "pkg/admission", "pkg/program", "pkg/credentials"]);

  it("name the webhook as it is registered", () => {
    const { webhooks } = shootWebhook({
      target: { mode: "url", url: "a.garden" },
      caBundlePem: "",
      ownerNamespace: "garden",
    });
    const names = rulesOf(groups).flatMap(({ expr }) => [...expr.matchAll(/[{ ]name="([^"]+)"/g)]);
    assert.ok(names.length >= 2);
    for (const [, each] of names) assert.equal(each, valueAt(webhooks[0], "name"));
  });
});
