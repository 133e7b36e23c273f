// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from "node:crypto";
import { PkiError } from "./errors.ts";
import { parsePrivateKey } from "./key-pair.ts";

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]*-----END CERTIFICATE-----/g;
const MAX_PEM_CHARACTERS = 1024 * 1024;
const MAX_CERTIFICATES = 64;

/**
 * All certificates of a PEM text, at least one; text around the blocks is ignored (RFC 7468 §2).
 * Bounded to 1 MiB and 64 certificates.
 * @throws PkiError PKI_CERTIFICATE_INVALID, naming the position of the bad one.
 */
export function parseCertificates(pem: string): readonly X509Certificate[] {
  if (pem.length > MAX_PEM_CHARACTERS)
    throw invalid(`certificates of ${pem.length} characters are more than is read`);
  const blocks = pem.match(PEM_CERTIFICATE) ?? [];
  if (blocks.length === 0) throw invalid("no certificate in PEM form");
  if (blocks.length !== pem.split("-----BEGIN CERTIFICATE-----").length - 1)
    throw invalid("a certificate is cut or not base64");
  if (blocks.length > MAX_CERTIFICATES)
    throw invalid(`${blocks.length} certificates are more than ${MAX_CERTIFICATES}`);
  return blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw invalid(`certificate ${index + 1} of ${blocks.length} is not valid X.509`, cause);
    }
  });
}

/** The first certificate of a PEM text. @throws PkiError PKI_CERTIFICATE_INVALID */
export function parseCertificate(pem: string): X509Certificate {
  return parseCertificates(pem)[0] as X509Certificate;
}

/**
 * Reads a certificate (with its chain, if any) and the key that must belong to it.
 * @throws PkiError PKI_CERTIFICATE_INVALID, PKI_KEY_INVALID or PKI_KEY_MISMATCH
 */
export function parseCertifiedKey(pair: {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}): X509Certificate {
  const certificate = parseCertificate(pair.certificatePem);
  if (!certificate.checkPrivateKey(parsePrivateKey(pair.privateKeyPem))) {
    throw new PkiError({
      code: "PKI_KEY_MISMATCH",
      message: "the private key does not belong to the certificate",
    });
  }
  return certificate;
}

/** True when one of the authorities issued and signed the certificate and both are valid at `nowMs`. */
export function isIssuedBy(
  certificate: X509Certificate,
  authorities: readonly X509Certificate[],
  nowMs: number,
): boolean {
  return (
    isValidAt(certificate, nowMs) &&
    authorities.some(
      (authority) =>
        authority.ca &&
        isValidAt(authority, nowMs) &&
        certificate.checkIssued(authority) &&
        certificate.verify(authority.publicKey),
    )
  );
}

/** True between notBefore and notAfter, both included (RFC 5280 §4.1.2.5). */
export function isValidAt(certificate: X509Certificate, nowMs: number): boolean {
  return certificate.validFromDate.getTime() <= nowMs && nowMs <= certificate.validToDate.getTime();
}

function invalid(message: string, cause?: unknown): PkiError {
  return new PkiError({ code: "PKI_CERTIFICATE_INVALID", message, cause });
}
