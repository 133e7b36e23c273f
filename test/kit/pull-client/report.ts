// SPDX-License-Identifier: Apache-2.0
import type { Descriptor, Digest } from "#oci";
import type { ImageObjectKind } from "../image-maker/index.ts";

/** A stretch of an object's bytes that one host delivered in one answer. */
export interface Part {
  /** Scheme, host and port as hosts.toml has them. */
  readonly host: string;
  /** True when the host stands before the registry, so that it was asked with `?ns=`. */
  readonly mirror: boolean;
  readonly offset: number;
  readonly bytes: number;
}

/** A host that was asked in vain. */
export interface Refusal {
  readonly host: string;
  readonly mirror: boolean;
  /** The status, or 0 when there was no answer. */
  readonly status: number;
  readonly reason: string;
}

export interface PulledObject extends Descriptor {
  readonly kind: ImageObjectKind;
  /** In order of their offsets; empty when the store had the object already. */
  readonly parts: readonly Part[];
  readonly refusals: readonly Refusal[];
  readonly durationMs: number;
}

export interface PullReport {
  /** `registry/repository:tag` or `...@digest`. */
  readonly reference: string;
  /** What the reference was resolved to. */
  readonly digest: Digest;
  /** The host that resolved it. */
  readonly resolvedBy: string;
  readonly objects: readonly PulledObject[];
  readonly durationMs: number;
}
