// SPDX-License-Identifier: Apache-2.0
/** Prometheus' own judge of rules, from Debian's package. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { unpackDebianPackage } from "../kit/systemd-rig/debian-package.ts";

const run = promisify(execFile);

export interface Verdict {
  readonly ok: boolean;
  readonly output: string;
}

/** One evaluation of rules over series that a test makes up. */
export interface RuleScenario {
  readonly name: string;
  readonly series: Readonly<Record<string, string>>;
  /** Minutes after the first sample. */
  readonly atMinutes: number;
  /** Alerts that fire then, by name; a name without any must not fire. */
  readonly firing: Readonly<Record<string, readonly ExpectedAlert[]>>;
}

export interface ExpectedAlert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface Promtool extends AsyncDisposable {
  check(groups: object): Promise<Verdict>;
  test(groups: object, scenarios: readonly RuleScenario[]): Promise<Verdict>;
}

/** @throws Error that says why there is no package */
export async function openPromtool({ signal }: { readonly signal: AbortSignal }): Promise<Promtool> {
  const promtool = join(await unpackDebianPackage("prometheus", { signal }), "usr/bin/promtool");
  const directory = await mkdtemp(join(tmpdir(), "promtool-"));
  // JSON is YAML.
  const rules = join(directory, "rules.yaml");
  const judge = async (...args: string[]): Promise<Verdict> => {
    try {
      const { stdout, stderr } = await run(promtool, args, { cwd: directory, signal });
      return { ok: true, output: stdout + stderr };
    } catch (error) {
      signal.throwIfAborted();
      const { stdout, stderr } = error as { readonly stdout: string; readonly stderr: string };
      return { ok: false, output: stdout + stderr };
    }
  };
  return {
    async check(groups) {
      await writeFile(rules, JSON.stringify(groups));
      return await judge("check", "rules", rules);
    },
    async test(groups, scenarios) {
      await writeFile(rules, JSON.stringify(groups));
      const tests = scenarios.map(({ name, series, atMinutes, firing }) => ({
        name,
        interval: "1m",
        input_series: Object.entries(series).map(([key, values]) => ({ series: key, values })),
        alert_rule_test: Object.entries(firing).map(([alertname, alerts]) => ({
          eval_time: `${atMinutes}m`,
          alertname,
          exp_alerts: alerts.map(({ labels, annotations }) => ({
            exp_labels: labels,
            exp_annotations: annotations,
          })),
        })),
      }));
      const file = join(directory, "tests.yaml");
      await writeFile(file, JSON.stringify({ rule_files: [rules], evaluation_interval: "1m", tests }));
      return await judge("test", "rules", file);
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
}
