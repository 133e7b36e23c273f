// SPDX-License-Identifier: Apache-2.0

/** Which names this node deals with. The mirror's request filters have this shape, so one value serves both. */
export interface Filters {
  /** False when the registry is not on the allow list or an expression matches `registry/repository[:tag]`. */
  admitsName(name: {
    readonly registry: string;
    readonly repository: string;
    readonly tag?: string | undefined;
  }): boolean;
  /** True when nothing is ever refused. */
  readonly empty: boolean;
}

/** Time, so that tests need not wait. */
export interface Clock {
  /** Milliseconds from any fixed point. */
  now(): number;
  /** Rejects with the signal's reason when it aborts first. */
  sleep(ms: number, options: { readonly signal: AbortSignal }): Promise<void>;
}

/** What is announced, by registry. Content of several registries counts for each. */
export interface AdvertisedCounts {
  readonly tags: ReadonlyMap<string, number>;
  readonly imageDigests: ReadonlyMap<string, number>;
  readonly contentDigests: ReadonlyMap<string, number>;
}

export interface AdvertiseMetrics {
  /** After each reconciliation. */
  reconciled(counts: AdvertisedCounts, durationMs: number): void;
  failed(): void;
  /** Whenever the number of announced keys changed. */
  keys(count: number): void;
}
