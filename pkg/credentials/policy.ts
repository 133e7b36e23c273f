// SPDX-License-Identifier: Apache-2.0
import type { X509Certificate } from "node:crypto";
import { isIssuedBy, isValidAt, parseCertificate, parseCertifiedKey, renewalTimeMs, validityOf } from "#pki";
import {
  AUTHORITY_KEYS,
  type AuthorityConfig,
  BUNDLE_KEY,
  LABEL,
  LEAF_KEYS,
  type LeafConfig,
  MANAGED_BY,
  type NewSecret,
  type Rotation,
  type StoredSecret,
} from "./model.ts";
import { checksum, secretName } from "./naming.ts";

/** What every decision is made from. */
export interface Situation {
  readonly identity: string;
  readonly existing: readonly StoredSecret[];
  readonly nowMs: number;
}

/** Use what is there, or make this. The labels lack the times of issue, which the maker knows. */
export type Decision =
  | { readonly kind: "keep"; readonly secret: StoredSecret }
  | {
      readonly kind: "issue";
      readonly name: string;
      readonly labels: Readonly<Record<string, string>>;
      readonly reason: IssueReason;
    };

export type IssueReason = "first" | "rotation" | "renewal" | "changed" | "unusable";

export interface AuthorityDecision {
  readonly current: Decision;
  /** Trusted beside the current one, and still signing servers. */
  readonly old?: StoredSecret;
}

/**
 * Which authority is current, and whether the one before still counts.
 *
 * The rotation time decides the name. It never goes back, so a repeated run finds the same authority. In the
 * Shoot's phase `Completing` the old one is dropped; not in the same run that makes a new one, because then nobody
 * trusts the new one yet.
 */
export function decideAuthority(
  config: AuthorityConfig,
  rotation: Rotation,
  situation: Situation,
): AuthorityDecision {
  const inUse = usedSecrets(config.name, situation);
  const newest = inUse[0];
  const { seconds, reason } = authorityRotation(newest, rotation, situation.nowMs);
  const configChecksum = checksum({ kind: "authority", name: config.name, version: 1 });
  const current = decide(
    config.name,
    configChecksum,
    configChecksum,
    seconds,
    situation,
    (secret) => (isUsableAuthority(secret, situation.nowMs) ? "usable" : "unusable"),
    {
      first: newest === undefined ? "first" : reason,
      ...(config.persist && { labels: { [LABEL.persist]: "true" } }),
    },
  );
  const currentName = current.kind === "keep" ? current.secret.name : current.name;
  const old = inUse.find((secret) => secret.name !== currentName);
  if (
    old === undefined ||
    isEnding(old, situation.nowMs) ||
    isOldIgnored(current, rotation, situation.nowMs)
  ) {
    return { current };
  }
  return { current, old };
}

/**
 * The Shoot's rotation, or age: an authority of ten years makes way for a new one after eight, and both are trusted
 * until the Shoot's next rotation completes or the old one ends.
 */
function authorityRotation(
  newest: StoredSecret | undefined,
  rotation: Rotation,
  nowMs: number,
): { readonly seconds: number | undefined; readonly reason: IssueReason } {
  const last = newest === undefined ? undefined : rotationSecondsOf(newest);
  const certificate = newest && readCertificate(newest, AUTHORITY_KEYS.certificate);
  if (certificate !== undefined && renewalTimeMs(validityOf(certificate)) <= nowMs) {
    return { seconds: Math.floor(nowMs / 1000), reason: "renewal" };
  }
  if (rotation.kind === "automatic" || rotation.lastInitiationTimeMs === undefined) {
    return { seconds: last, reason: "changed" };
  }
  return { seconds: latest(Math.floor(rotation.lastInitiationTimeMs / 1000), last), reason: "rotation" };
}

function isOldIgnored(current: Decision, rotation: Rotation, nowMs: number): boolean {
  if (current.kind === "issue") return false;
  if (rotation.kind === "shoot") return rotation.phase === "Completing";
  return nowMs - issuedAtMs(current.secret) > rotation.ignoreOldAfterMs;
}

/**
 * Whether a leaf can stay. A server's signer is the old authority while there is one, because not every client may
 * trust the new one yet; a client's is the current one, because every server trusts both (`signerOf`).
 */
export function decideLeaf(config: LeafConfig, signerPem: string, situation: Situation): Decision {
  const newest = usedSecrets(config.name, situation)[0];
  const configChecksum = checksum({
    kind: config.usage,
    name: config.name,
    commonName: config.commonName,
    dnsNames: config.dnsNames ?? [],
    ipAddresses: config.ipAddresses ?? [],
    version: 1,
  });
  const signerChecksum = checksum(signerPem);
  return decide(
    config.name,
    configChecksum,
    configChecksum + signerChecksum,
    newest && rotationSecondsOf(newest),
    situation,
    (secret) => isUsableLeaf(secret, signerPem, situation.nowMs),
    { first: newest === undefined ? "first" : "changed", labels: { [LABEL.signerChecksum]: signerChecksum } },
  );
}

/** The authority that signs a leaf. */
export function signerOf<T>(
  leaf: Pick<LeafConfig, "usage" | "signedBy">,
  authorities: { readonly current: T; readonly old?: T },
): T {
  const isByOld = leaf.usage === "server" && leaf.signedBy !== "current";
  return isByOld ? (authorities.old ?? authorities.current) : authorities.current;
}

/** The secret with the certificates to trust: the current authority first, then the old one. */
export function bundleSecret(
  authorityName: string,
  pems: readonly string[],
  situation: Pick<Situation, "identity">,
): NewSecret {
  const name = `${authorityName}-bundle`;
  const text = pems.map((pem) => pem.trimEnd()).join("\n");
  const sum = checksum(text);
  return {
    name: secretName(name, sum, undefined),
    type: "Opaque",
    labels: { ...baseLabels(name, situation.identity, sum, undefined), [LABEL.bundleFor]: authorityName },
    data: { [BUNDLE_KEY]: `${text}\n` },
  };
}

export interface PruneDecision {
  /** Nothing uses them since now. */
  readonly mark: readonly string[];
  /** Marked before, used again. */
  readonly unmark: readonly string[];
  /** Marked in an earlier run: what referred to them then has been replaced meanwhile. */
  readonly delete: readonly string[];
}

/**
 * What to do with the secrets that this run did not use. `existing` is the state at the start of the run.
 * The OperatingSystemConfig that refers to a client secret is only rewritten after the run, so a secret outlives
 * its last use by one run.
 */
export function decidePrune(existing: readonly StoredSecret[], used: ReadonlySet<string>): PruneDecision {
  const named = (matches: (secret: StoredSecret) => boolean): string[] =>
    existing.filter(matches).map((secret) => secret.name);
  return {
    mark: named((secret) => !used.has(secret.name) && !isMarked(secret)),
    unmark: named((secret) => used.has(secret.name) && isMarked(secret)),
    delete: named((secret) => !used.has(secret.name) && isMarked(secret)),
  };
}

/** Keeps the secret of the wanted name when it is fit for use; else decides on a name that is not taken. */
function decide(
  name: string,
  configChecksum: string,
  checksums: string,
  rotationSeconds: number | undefined,
  situation: Situation,
  isUsable: (secret: StoredSecret) => "usable" | "renewal" | "unusable",
  options: { readonly first: IssueReason; readonly labels?: Readonly<Record<string, string>> },
): Decision {
  let seconds = rotationSeconds;
  let reason = options.first;
  for (;;) {
    const wanted = secretName(name, checksums, seconds);
    const present = situation.existing.find((secret) => secret.name === wanted);
    if (present === undefined) {
      const labels = { ...baseLabels(name, situation.identity, configChecksum, seconds), ...options.labels };
      return { kind: "issue", name: wanted, labels, reason };
    }
    const state = isUsable(present);
    if (state === "usable") return { kind: "keep", secret: present };
    reason = state;
    seconds = Math.max(Math.floor(situation.nowMs / 1000), (seconds ?? 0) + 1);
  }
}

function baseLabels(
  name: string,
  identity: string,
  configChecksum: string,
  rotationSeconds: number | undefined,
): Record<string, string> {
  return {
    [LABEL.name]: name,
    [LABEL.managedBy]: MANAGED_BY,
    [LABEL.identity]: identity,
    [LABEL.configChecksum]: configChecksum,
    [LABEL.rotationTime]: rotationSeconds === undefined ? "" : String(rotationSeconds),
  };
}

/** Secrets of a name that were not dropped, newest first. */
function usedSecrets(name: string, situation: Situation): StoredSecret[] {
  return situation.existing
    .filter((secret) => secret.labels[LABEL.name] === name && !isMarked(secret))
    .sort(
      (a, b) =>
        (rotationSecondsOf(b) ?? 0) - (rotationSecondsOf(a) ?? 0) ||
        issuedAtMs(b) - issuedAtMs(a) ||
        b.createdMs - a.createdMs ||
        (a.name < b.name ? -1 : 1),
    );
}

const isMarked = (secret: StoredSecret): boolean => secret.labels[LABEL.unusedSince] !== undefined;

function rotationSecondsOf(secret: StoredSecret): number | undefined {
  return wholeNumber(secret.labels[LABEL.rotationTime]);
}

function issuedAtMs(secret: StoredSecret): number {
  const seconds = wholeNumber(secret.labels[LABEL.issuedAt]);
  return seconds === undefined ? secret.createdMs : seconds * 1000;
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,12}$/.test(text) ? Number(text) : undefined;
}

function latest(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? (a ?? b) : Math.max(a, b);
}

function isUsableAuthority(secret: StoredSecret, nowMs: number): boolean {
  const certificate = readPair(secret, AUTHORITY_KEYS);
  return certificate?.ca === true && isValidAt(certificate, nowMs);
}

/** The last twentieth of its validity: time for the servers it signed to get certificates of the current one. */
function isEnding(secret: StoredSecret, nowMs: number): boolean {
  const certificate = readCertificate(secret, AUTHORITY_KEYS.certificate);
  if (certificate === undefined || !isUsableAuthority(secret, nowMs)) return true;
  const { notBeforeMs, notAfterMs } = validityOf(certificate);
  return nowMs >= notAfterMs - (notAfterMs - notBeforeMs) / 20;
}

function isUsableLeaf(
  secret: StoredSecret,
  signerPem: string,
  nowMs: number,
): "usable" | "renewal" | "unusable" {
  const certificate = readPair(secret, LEAF_KEYS);
  if (certificate === undefined || !isIssuedBy(certificate, [parseCertificate(signerPem)], nowMs))
    return "unusable";
  return renewalTimeMs(validityOf(certificate)) <= nowMs ? "renewal" : "usable";
}

function readPair(
  secret: StoredSecret,
  keys: { readonly certificate: string; readonly key: string },
): X509Certificate | undefined {
  try {
    return parseCertifiedKey({
      certificatePem: secret.data[keys.certificate] ?? "",
      privateKeyPem: secret.data[keys.key] ?? "",
    });
  } catch {
    return undefined; // damaged: decided like an expired one, by issuing anew
  }
}

function readCertificate(secret: StoredSecret, key: string): X509Certificate | undefined {
  try {
    return parseCertificate(secret.data[key] ?? "");
  } catch {
    return undefined;
  }
}
