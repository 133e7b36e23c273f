// SPDX-License-Identifier: Apache-2.0
import type { Cluster, Extension } from "#api/gardener";
import type { SpegelPorts, SpegelStatus } from "#api/spegel";
import { hasCode } from "#errors";
import type { KubeClient } from "#kube";
import type { Logger } from "#log";
import type { ExtensionOptions } from "./options.ts";
import type { Certificates, DecodeConfig, EnsuredCertificates } from "./ports.ts";
import type { ShootFacts } from "./shoot.ts";

/** What steps work with. */
export interface StepDeps {
  readonly client: KubeClient;
  readonly certificates: Certificates;
  readonly decodeConfig: DecodeConfig;
  readonly logger: Logger;
  readonly options: ExtensionOptions;
}

/** One run for one Extension. The upper half is given, the lower half is what steps found for those after them. */
export interface Run {
  readonly extension: Extension;
  readonly namespace: string;
  /** As read before the run; undefined when the namespace is no Shoot's or has no Cluster. */
  readonly cluster: Cluster | undefined;
  readonly signal: AbortSignal;

  shoot?: ShootFacts;
  ports?: SpegelPorts;
  host?: string;
  certificates?: EnsuredCertificates;
}

/**
 * What the runner is to do after a step; nothing: go on. `report` writes the providerStatus (null: takes it away),
 * `finish` skips the steps that follow. Only the runner writes status.
 */
export type StepOutcome =
  | { readonly kind: "report"; readonly providerStatus: SpegelStatus | null }
  | { readonly kind: "finish"; readonly reason: string; readonly providerStatus: null };

/** One line of an operation. It may be run again at any time and then changes nothing that is as it should be. */
export type Step = (run: Run, deps: StepDeps) => Promise<StepOutcome | undefined>;

/**
 * For what the Shoot's own resource manager has to take away before it is made again. While the Shoot sleeps it cannot,
 * so what is still leaving is left alone; the Extension is reconciled when the Shoot wakes up.
 */
export async function unlessAsleep(run: Run, action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    const isLeaving = hasCode(error, "EXTENSION_NOT_DELETED");
    if (!isLeaving || run.shoot?.isHibernated !== true) throw error;
  }
}

/** A value that an earlier step of the same operation must have found. */
export function found<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new TypeError(`a step ran before the one that finds ${what}`);
  return value;
}
