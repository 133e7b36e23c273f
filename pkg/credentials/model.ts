// SPDX-License-Identifier: Apache-2.0

/** A secret of one identity, as it is in the cluster. */
export interface StoredSecret {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Milliseconds since 1970. */
  readonly createdMs: number;
  /** Decoded: PEM texts. */
  readonly data: Readonly<Record<string, string>>;
}

/** A secret to be made; always immutable. */
export interface NewSecret {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly type: "kubernetes.io/tls" | "Opaque";
  readonly data: Readonly<Record<string, string>>;
}

/**
 * The secrets of one identity in one namespace. Others are neither seen nor touched.
 */
export interface SecretStore {
  list(options: { readonly signal: AbortSignal }): Promise<readonly StoredSecret[]>;
  /** `exists` when a secret of that name is there already, whosever it is. */
  create(secret: NewSecret, options: { readonly signal: AbortSignal }): Promise<"created" | "exists">;
  /** Sets labels; null removes one. A secret that is gone is no error. */
  setLabels(
    name: string,
    labels: Readonly<Record<string, string | null>>,
    options: { readonly signal: AbortSignal },
  ): Promise<void>;
  /** A secret that is gone is no error. */
  delete(name: string, options: { readonly signal: AbortSignal }): Promise<void>;
}

export interface AuthorityConfig {
  /** Name of the secrets is this plus a hash, e.g. `ca-extension-registry-spegel`. */
  readonly name: string;
  readonly validityMs: number;
  /** Kept through control-plane migration: gardenlet copies it into the ShootState. */
  readonly persist: boolean;
}

export interface LeafConfig {
  readonly name: string;
  readonly usage: "server" | "client";
  readonly commonName: string;
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
  readonly validityMs: number;
  /**
   * `current`: never by the old authority. For a server whose clients get the bundle before it gets its certificate.
   */
  readonly signedBy?: "current";
}

export interface CredentialsConfig {
  /** Unique per controller: the label `manager-identity`. */
  readonly identity: string;
  readonly authority: AuthorityConfig;
  readonly leaves: readonly LeafConfig[];
}

/** When the authority is replaced. */
export type Rotation =
  | {
      /** In lock-step with the Shoot's own authorities, and by age; the old one is trusted until the phase `Completing`. */
      readonly kind: "shoot";
      /** `status.credentials.rotation.certificateAuthorities` of the Shoot. */
      readonly phase?: string;
      readonly lastInitiationTimeMs?: number;
    }
  | {
      /** By age; the old one is trusted this long beside the new one. */
      readonly kind: "automatic";
      readonly ignoreOldAfterMs: number;
    };

/** Labels of Gardener's secrets manager, and one of ours. */
export const LABEL = {
  name: "name",
  managedBy: "managed-by",
  identity: "manager-identity",
  configChecksum: "checksum-of-config",
  signerChecksum: "checksum-of-signing-ca",
  rotationTime: "last-rotation-initiation-time",
  bundleFor: "bundle-for",
  persist: "persist",
  issuedAt: "issued-at-time",
  validUntil: "valid-until-time",
  /** Since when (Unix seconds) nothing uses the secret; it is deleted one reconcile later. */
  unusedSince: "spegel.extensions.gardener.cloud/unused-since",
} as const;

export const MANAGED_BY = "secrets-manager";

export const AUTHORITY_KEYS = { certificate: "ca.crt", key: "ca.key" } as const;
export const LEAF_KEYS = { certificate: "tls.crt", key: "tls.key" } as const;
export const BUNDLE_KEY = "bundle.crt";
