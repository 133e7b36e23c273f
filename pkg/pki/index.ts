// SPDX-License-Identifier: Apache-2.0
/**
 * X.509: keys by node:crypto, certificates built by node-forge (imported nowhere else), reading by node:crypto.
 *
 * Forms follow RFC 5280 and what Go's verifier demands: names in SAN, one usage per leaf, a positive serial.
 */
export { PkiError, type PkiErrorCode } from "./errors.ts";
export {
  type AuthorityRequest,
  type CertifiedKey,
  CLOCK_SKEW_MS,
  issueAuthority,
  issueLeaf,
  type LeafRequest,
} from "./issue.ts";
export { createKeyPair, DEFAULT_KEY_BITS, type KeyPair, parsePrivateKey, publicKeyOf } from "./key-pair.ts";
export { isIssuedBy, isValidAt, parseCertificate, parseCertificates, parseCertifiedKey } from "./parse.ts";
export { DEFAULT_RENEWAL, type RenewalPolicy, renewalTimeMs, type Validity, validityOf } from "./renewal.ts";
