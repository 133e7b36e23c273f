// SPDX-License-Identifier: Apache-2.0
import type { SpegelPorts } from "#api/spegel";

/** A leaf that exists in the Shoot's namespace, by the name of its secret. */
export interface EnsuredCertificates {
  readonly bundleSecretName: string;
  readonly serverSecretName: string;
  readonly clientSecretName: string;
  /** Deletes what no longer counts. Called once everything that uses the certificates is in place. */
  prune(options: { readonly signal: AbortSignal }): Promise<void>;
}

/** The certificates of one Shoot: an authority, the bootstrapper's server and the nodes' client certificate. */
export interface Certificates {
  /** Makes what is missing or due; running it again changes nothing. */
  ensure(
    shoot: {
      readonly namespace: string;
      readonly serverNames: readonly string[];
      readonly rotation: { readonly phase?: string; readonly lastInitiationTimeMs?: number };
    },
    options: { readonly signal: AbortSignal },
  ): Promise<EnsuredCertificates>;
  /** Deletes them all. */
  remove(namespace: string, options: { readonly signal: AbortSignal }): Promise<void>;
}

/** Decodes and judges a providerConfig; undefined and null mean the defaults. Throws for anything invalid. */
export type DecodeConfig = (providerConfig: unknown) => SpegelPorts;
