// SPDX-License-Identifier: Apache-2.0
/**
 * Instruments of one program, and their text exposition. prom-client stands behind it and is imported nowhere else.
 *
 * There is no global registry: a program creates its metrics and hands them to the domains. Names are
 * Spegel's where Spegel has them. Label values come from bounded sets; `boundedLabel` makes one so.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";

export interface CounterInstrument {
  add(labels?: Readonly<Record<string, string>>, value?: number): void;
}

export interface GaugeInstrument {
  set(value: number, labels?: Readonly<Record<string, string>>): void;
  /** Removes all label combinations, before a gauge is set anew from a full list. */
  reset(): void;
}

export interface HistogramInstrument {
  observe(value: number, labels?: Readonly<Record<string, string>>): void;
}

export interface InstrumentOptions {
  readonly name: string;
  /** One sentence, ends with a period. */
  readonly help: string;
  readonly labels?: readonly string[];
}

export interface Metrics {
  counter(options: InstrumentOptions): CounterInstrument;
  gauge(options: InstrumentOptions): GaugeInstrument;
  /** A gauge whose value is read when it is rendered. */
  observedGauge(options: InstrumentOptions, read: () => number): void;
  histogram(options: InstrumentOptions & { readonly buckets?: readonly number[] }): HistogramInstrument;
  /** The Prometheus text format, version 0.0.4. */
  render(): Promise<string>;
  readonly contentType: string;
}

export function createMetrics(): Metrics {
  const registry = new Registry();
  const base = (
    options: InstrumentOptions,
  ): { name: string; help: string; labelNames: string[]; registers: Registry[] } => ({
    name: options.name,
    help: options.help,
    labelNames: [...(options.labels ?? [])],
    registers: [registry],
  });
  return {
    counter(options) {
      const counter = new Counter(base(options));
      return { add: (labels, value) => counter.inc(labels ?? {}, value ?? 1) };
    },
    gauge(options) {
      const gauge = new Gauge(base(options));
      return { set: (value, labels) => gauge.set(labels ?? {}, value), reset: () => gauge.reset() };
    },
    observedGauge(options, read) {
      new Gauge({
        ...base(options),
        collect() {
          this.set(read());
        },
      });
    },
    histogram(options) {
      const histogram = new Histogram({
        ...base(options),
        ...(options.buckets === undefined ? {} : { buckets: [...options.buckets] }),
      });
      return { observe: (value, labels) => histogram.observe(labels ?? {}, value) };
    },
    render: () => registry.metrics(),
    contentType: registry.contentType,
  };
}

/** Passes the first `limit` distinct values through and maps all later ones to `other`: a label that strangers choose stays bounded. */
export function boundedLabel(limit: number): (value: string) => string {
  const seen = new Set<string>();
  return (value) => {
    if (seen.has(value)) return value;
    if (seen.size >= limit) return "other";
    seen.add(value);
    return value;
  };
}
