// SPDX-License-Identifier: Apache-2.0
/**
 * When authorities, servers and clients get new certificates, and which old ones still count.
 *
 * The model is that of Gardener's secrets manager (extensions/pkg/util/secret/manager): immutable secrets whose
 * names change with their content, an old authority that is kept until nobody needs it, bundles for both sides.
 * policy.ts decides and touches nothing; credentials.ts carries the decisions out over a SecretStore.
 */
export {
  type Credentials,
  type CredentialsDeps,
  ensureCredentials,
  type IssuedLeaf,
  pruneCredentials,
  removeCredentials,
} from "./credentials.ts";
export { CredentialsError, type CredentialsErrorCode } from "./errors.ts";
export { createKubeSecretStore } from "./kube-secret-store.ts";
export {
  type AuthorityConfig,
  BUNDLE_KEY,
  type CredentialsConfig,
  LABEL,
  LEAF_KEYS,
  type LeafConfig,
  MANAGED_BY,
  type NewSecret,
  type Rotation,
  type SecretStore,
  type StoredSecret,
} from "./model.ts";
export { type Decision, decideAuthority, decideLeaf, decidePrune, type IssueReason } from "./policy.ts";
export {
  createWebhookCertificates,
  keepWebhookRegistered,
  type WebhookCertificates,
  type WebhookCertificatesOptions,
} from "./webhook-certificates.ts";
