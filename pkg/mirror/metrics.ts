// SPDX-License-Identifier: Apache-2.0
import { boundedLabel, type Metrics } from "#metrics";

/** What the mirror counts. Names of Spegel where Spegel has them. */
export interface MirrorMetrics {
  /** One finished request that was answered from peers, or could not be. */
  mirrored(registry: string, hit: boolean): void;
  /** Body bytes of content sent, by where they came from. */
  sent(source: "local" | "peer", bytes: number): void;
  /** A peer that was left in the middle of a body. */
  sourceLost(reason: string): void;
  /** A peer whose answer could not be used. */
  peerFailed(reason: string): void;
  /** One finished HTTP request. */
  answered(request: {
    readonly handler: string;
    readonly method: string;
    readonly status: number;
    readonly seconds: number;
    readonly bytes: number;
  }): void;
  started(handler: string): void;
}

const MAX_REGISTRIES = 100;
const SIZE_BUCKETS = [1024, 5120, 25600, 128000, 640000, 3.2e6, 1.6e7, 8e7, 4e8, 2e9];

export function createMirrorMetrics(metrics: Metrics): MirrorMetrics {
  const registryLabel = boundedLabel(MAX_REGISTRIES);
  const requests = metrics.counter({
    name: "spegel_mirror_requests_total",
    help: "Total number of mirror requests.",
    labels: ["registry", "cache"],
  });
  const lastSuccess = metrics.gauge({
    name: "spegel_mirror_last_success_timestamp_seconds",
    help: "The timestamp of the last successful mirror request.",
  });
  const bytes = metrics.counter({
    name: "spegel_sent_bytes_total",
    help: "Total body bytes of content sent, by source.",
    labels: ["source"],
  });
  const lost = metrics.counter({
    name: "spegel_mirror_sources_lost_total",
    help: "Peers that were replaced in the middle of a body, by reason.",
    labels: ["reason"],
  });
  const failed = metrics.counter({
    name: "spegel_mirror_peer_failures_total",
    help: "Answers of peers that could not be used, by reason.",
    labels: ["reason"],
  });
  const labels = ["handler", "method", "code"];
  const duration = metrics.histogram({
    name: "http_request_duration_seconds",
    help: "The latency of the HTTP requests.",
    labels,
  });
  const size = metrics.histogram({
    name: "http_response_size_bytes",
    help: "The size of the HTTP responses.",
    labels,
    buckets: SIZE_BUCKETS,
  });
  const inflight = metrics.gauge({
    name: "http_requests_inflight",
    help: "The number of inflight requests being handled at the same time.",
    labels: ["handler"],
  });
  const running = new Map<string, number>();
  const count = (handler: string, change: number): void => {
    const value = (running.get(handler) ?? 0) + change;
    running.set(handler, value);
    inflight.set(value, { handler });
  };

  return {
    mirrored(registry, hit) {
      requests.add({ registry: registryLabel(registry), cache: hit ? "hit" : "miss" });
      if (hit) lastSuccess.set(Date.now() / 1000);
    },
    sent: (source, count) => bytes.add({ source }, count),
    sourceLost: (reason) => lost.add({ reason }),
    peerFailed: (reason) => failed.add({ reason }),
    started: (handler) => count(handler, 1),
    answered(request) {
      count(request.handler, -1);
      const values = {
        handler: request.handler,
        method: request.method.toLowerCase(),
        code: String(request.status),
      };
      duration.observe(request.seconds, values);
      size.observe(request.bytes, values);
    },
  };
}
