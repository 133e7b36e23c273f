// SPDX-License-Identifier: Apache-2.0
import { boundedLabel, type Metrics } from "#metrics";
import type { AdvertiseMetrics } from "./ports.ts";

const MAX_REGISTRIES = 100;

/** Spegel's three gauges, and ours. More than 100 registries are counted together as `other`. */
export function createAdvertiseMetrics(metrics: Metrics): AdvertiseMetrics {
  const registryLabel = boundedLabel(MAX_REGISTRIES);
  const perRegistry = (name: string, help: string): ((counts: ReadonlyMap<string, number>) => void) => {
    const gauge = metrics.gauge({ name, help, labels: ["registry"] });
    return (counts) => {
      const labelled = new Map<string, number>();
      for (const [registry, count] of counts) {
        const label = registryLabel(registry);
        labelled.set(label, (labelled.get(label) ?? 0) + count);
      }
      gauge.reset();
      for (const [registry, count] of labelled) gauge.set(count, { registry });
    };
  };
  const tags = perRegistry(
    "spegel_advertised_image_tags",
    "Number of image tags advertised to be available.",
  );
  const imageDigests = perRegistry(
    "spegel_advertised_image_digests",
    "Number of image digests advertised to be available.",
  );
  const contentDigests = perRegistry(
    "spegel_advertised_content_digests",
    "Number of content digests advertised to be available.",
  );
  const keys = metrics.gauge({
    name: "spegel_advertised_keys",
    help: "Number of keys announced to the swarm.",
  });
  const duration = metrics.histogram({
    name: "spegel_advertise_duration_seconds",
    help: "The duration of listing content and announcing what changed.",
  });
  const failures = metrics.counter({
    name: "spegel_advertise_failures_total",
    help: "Total number of failed attempts to list content or to announce it.",
  });

  return {
    reconciled(counts, durationMs) {
      tags(counts.tags);
      imageDigests(counts.imageDigests);
      contentDigests(counts.contentDigests);
      duration.observe(durationMs / 1000);
    },
    failed: () => failures.add(),
    keys: (count) => keys.set(count),
  };
}
