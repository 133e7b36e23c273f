// SPDX-License-Identifier: Apache-2.0
import type { Logger } from "#log";
import {
  type CertifiedKey,
  createKeyPair,
  issueAuthority,
  issueLeaf,
  type KeyPair,
  parseCertificate,
  validityOf,
} from "#pki";
import { CredentialsError } from "./errors.ts";
import {
  AUTHORITY_KEYS,
  BUNDLE_KEY,
  type CredentialsConfig,
  LABEL,
  LEAF_KEYS,
  type LeafConfig,
  type NewSecret,
  type Rotation,
  type SecretStore,
  type StoredSecret,
} from "./model.ts";
import {
  bundleSecret,
  type Decision,
  decideAuthority,
  decideLeaf,
  decidePrune,
  type Situation,
  signerOf,
} from "./policy.ts";

/** A leaf that is ready for use. */
export interface IssuedLeaf extends CertifiedKey {
  readonly secretName: string;
  readonly notAfterMs: number;
}

/** All that one run of `ensureCredentials` found or made. */
export interface Credentials {
  readonly authorityNotAfterMs: number;
  readonly bundle: { readonly secretName: string; readonly pem: string };
  /** By the name in the configuration. */
  readonly leaves: Readonly<Record<string, IssuedLeaf>>;
  /** The secrets at the start of the run, and those in use at its end: what `pruneCredentials` decides from. */
  readonly existing: readonly StoredSecret[];
  readonly used: ReadonlySet<string>;
}

export interface CredentialsDeps {
  readonly store: SecretStore;
  readonly logger: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Default: RSA 3072. */
  readonly createKey?: () => Promise<KeyPair>;
}

interface Cancel {
  readonly signal: AbortSignal;
}

/** Another replica may create the same secret at the same time: its one is used then. */
const ATTEMPTS = 5;

/**
 * Makes sure that the authority, its bundle and all leaves exist and are fit for use; makes what is missing, due or
 * unusable. Deletes nothing. Running it again changes nothing.
 * @throws CredentialsError CREDENTIALS_SECRET_TAKEN; what the store throws passes through.
 */
export async function ensureCredentials(
  deps: CredentialsDeps,
  config: CredentialsConfig,
  rotation: Rotation,
  cancel: Cancel,
): Promise<Credentials> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await tryToEnsure(deps, config, rotation, cancel);
    } catch (error) {
      if (!(error instanceof CredentialsError) || attempt === ATTEMPTS) throw error;
    }
  }
}

/** @throws CredentialsError CREDENTIALS_SECRET_TAKEN when somebody else was quicker with one of the secrets */
async function tryToEnsure(
  deps: CredentialsDeps,
  config: CredentialsConfig,
  rotation: Rotation,
  cancel: Cancel,
): Promise<Credentials> {
  const existing = await deps.store.list(cancel);
  const situation: Situation = { identity: config.identity, existing, nowMs: deps.now() };
  const decision = decideAuthority(config.authority, rotation, situation);
  const current = await realize(deps, decision.current, situation, cancel, async (name) => {
    const key = await (deps.createKey ?? createKeyPair)();
    const { validityMs } = config.authority;
    const pair = await issueAuthority({ commonName: name, validityMs, nowMs: situation.nowMs, key });
    return {
      type: "Opaque",
      data: { [AUTHORITY_KEYS.certificate]: pair.certificatePem, [AUTHORITY_KEYS.key]: pair.privateKeyPem },
    };
  });
  const authorities = { current: pairOf(current), ...(decision.old && { old: pairOf(decision.old) }) };
  const pems = [authorities.current, ...(authorities.old ? [authorities.old] : [])].map(
    (pair) => pair.certificatePem,
  );
  const bundle = bundleSecret(config.authority.name, pems, situation);
  const isBundleThere = existing.some((secret) => secret.name === bundle.name);
  if (!isBundleThere) await create(deps, bundle, situation.identity, cancel);
  const leaves: Record<string, IssuedLeaf> = {};
  for (const leaf of config.leaves) {
    const secret = await ensureLeaf(deps, leaf, signerOf(leaf, authorities), situation, cancel);
    leaves[leaf.name] = issuedLeaf(secret);
  }
  const names = [
    current.name,
    decision.old?.name,
    bundle.name,
    ...Object.values(leaves).map((leaf) => leaf.secretName),
  ];
  return {
    authorityNotAfterMs: validityOf(parseCertificate(authorities.current.certificatePem)).notAfterMs,
    bundle: { secretName: bundle.name, pem: bundle.data[BUNDLE_KEY] as string },
    leaves,
    existing,
    used: new Set(names.filter((name) => name !== undefined)),
  };
}

async function ensureLeaf(
  deps: CredentialsDeps,
  leaf: LeafConfig,
  signer: CertifiedKey,
  situation: Situation,
  cancel: Cancel,
): Promise<NamedSecret> {
  const decision = decideLeaf(leaf, signer.certificatePem, situation);
  return await realize(deps, decision, situation, cancel, async () => {
    const key = await (deps.createKey ?? createKeyPair)();
    const pair = await issueLeaf(signer, { ...leaf, nowMs: situation.nowMs, key });
    return {
      type: "kubernetes.io/tls",
      data: { [LEAF_KEYS.certificate]: pair.certificatePem, [LEAF_KEYS.key]: pair.privateKeyPem },
    };
  });
}

type NamedSecret = Pick<StoredSecret, "name" | "data">;

/** The secret of a decision, made if it has to be. */
async function realize(
  deps: CredentialsDeps,
  decision: Decision,
  { identity }: Situation,
  cancel: Cancel,
  make: (name: string) => Promise<Pick<NewSecret, "type" | "data">>,
): Promise<NamedSecret> {
  if (decision.kind === "keep") return decision.secret;
  const made = await make(decision.name);
  const certificate = parseCertificate(
    made.data[AUTHORITY_KEYS.certificate] ?? made.data[LEAF_KEYS.certificate] ?? "",
  );
  const times = {
    [LABEL.issuedAt]: String(Math.floor(deps.now() / 1000)),
    [LABEL.validUntil]: String(Math.floor(validityOf(certificate).notAfterMs / 1000)),
  };
  const secret: NewSecret = { ...made, name: decision.name, labels: { ...decision.labels, ...times } };
  await create(deps, secret, identity, cancel);
  deps.logger.info("certificate issued", { secret: secret.name, reason: decision.reason });
  return secret;
}

async function create(
  { store }: CredentialsDeps,
  secret: NewSecret,
  identity: string,
  cancel: Cancel,
): Promise<void> {
  if ((await store.create(secret, cancel)) === "created") return;
  throw new CredentialsError({
    code: "CREDENTIALS_SECRET_TAKEN",
    message: `Secret ${secret.name} exists without the labels of ${identity}: delete it if nobody needs it`,
  });
}

function pairOf(secret: NamedSecret): CertifiedKey {
  return {
    certificatePem: secret.data[AUTHORITY_KEYS.certificate] as string,
    privateKeyPem: secret.data[AUTHORITY_KEYS.key] as string,
  };
}

function issuedLeaf(secret: NamedSecret): IssuedLeaf {
  const certificatePem = secret.data[LEAF_KEYS.certificate] as string;
  return {
    secretName: secret.name,
    certificatePem,
    privateKeyPem: secret.data[LEAF_KEYS.key] as string,
    notAfterMs: validityOf(parseCertificate(certificatePem)).notAfterMs,
  };
}

/** Marks what the run did not use, deletes what an earlier run marked. Call it after everything was deployed. */
export async function pruneCredentials(
  deps: Pick<CredentialsDeps, "store" | "logger" | "now">,
  credentials: Pick<Credentials, "existing" | "used">,
  cancel: Cancel,
): Promise<void> {
  const decision = decidePrune(credentials.existing, credentials.used);
  const seconds = String(Math.floor(deps.now() / 1000));
  for (const name of decision.mark) {
    await deps.store.setLabels(name, { [LABEL.unusedSince]: seconds, [LABEL.persist]: null }, cancel);
  }
  for (const name of decision.unmark) await deps.store.setLabels(name, { [LABEL.unusedSince]: null }, cancel);
  for (const name of decision.delete) {
    await deps.store.delete(name, cancel);
    deps.logger.info("unused certificate deleted", { secret: name });
  }
}

/** Deletes every secret of the identity. Never call it when a control plane migrates. */
export async function removeCredentials(store: SecretStore, cancel: Cancel): Promise<void> {
  for (const secret of await store.list(cancel)) await store.delete(secret.name, cancel);
}
