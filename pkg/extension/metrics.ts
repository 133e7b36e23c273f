// SPDX-License-Identifier: Apache-2.0
import type { Metrics } from "#metrics";

export interface ExtensionMetrics {
  observeRun(result: "success" | "error", durationSeconds: number): void;
}

/** How often and how long Extensions are worked on. */
export function createExtensionMetrics(metrics: Metrics): ExtensionMetrics {
  const runs = metrics.counter({
    name: "registry_spegel_extension_runs_total",
    help: "Total number of runs for an Extension by result.",
    labels: ["result"],
  });
  const duration = metrics.histogram({
    name: "registry_spegel_extension_run_duration_seconds",
    help: "Duration of the runs for an Extension.",
    buckets: [0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 180],
  });
  return {
    observeRun(result, durationSeconds) {
      runs.add({ result });
      duration.observe(durationSeconds);
    },
  };
}
