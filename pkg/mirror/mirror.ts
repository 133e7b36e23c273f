// SPDX-License-Identifier: Apache-2.0
import type { Semaphore } from "#async";
import type { Logger } from "#log";
import type { Router } from "#routing";
import type { ContentStore } from "#store";
import type { PeerPool } from "#transfer";
import type { BlobDoubts } from "./blob-doubts.ts";
import type { Filters } from "./filters.ts";
import type { MirrorMetrics } from "./metrics.ts";
import type { Pull } from "./parse-pull.ts";
import type { PeerHealth } from "./peer-health.ts";
import type { RaceOptions } from "./race-fetch.ts";
import type { RelayFloor } from "./relay-floor.ts";

/** What answering pulls needs. */
export interface MirrorDeps {
  readonly store: ContentStore;
  readonly router: Router;
  readonly filters: Filters;
  readonly health: PeerHealth;
  readonly metrics: MirrorMetrics;
  readonly pool: PeerPool;
  readonly doubts: BlobDoubts;
  readonly floor: RelayFloor;
  /** How many doubted blobs are read through at the same time. */
  readonly verifySlots: Semaphore;
  readonly log: Logger;
}

export interface MirrorOptions extends RaceOptions {
  readonly registryPort: number;
  /** How many peers a look-up asks for (`--mirror-resolve-retries`). */
  readonly lookupCount: number;
  readonly stallTimeoutMs: number;
  /** How long a peer may take to show that it has the right bytes of a doubted blob. */
  readonly verifyTimeoutMs: number;
  /** Credentials for peers, when the nodes' registries are protected. */
  readonly authorization?: string;
}

/** What happened to one pull; becomes its log line. */
export interface PullRecord {
  readonly pull?: Pull;
  readonly source: "local" | "peer" | "none";
  readonly bytes: number;
  /** Peers that delivered bytes, in order. */
  readonly peers?: readonly string[];
  readonly resumes?: number;
  /** Why there was no content, or why it was cut. */
  readonly reason?: string;
}
