// SPDX-License-Identifier: Apache-2.0
import { type KeyObject, randomBytes, sign } from "node:crypto";
import { isIP } from "node:net";
import forge from "node-forge";
import { PkiError } from "./errors.ts";
import { createKeyPair, type KeyPair, parsePrivateKey } from "./key-pair.ts";
import { parseCertificate } from "./parse.ts";

/** A certificate and its key, both PEM. */
export interface CertifiedKey {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

export interface AuthorityRequest {
  /** At most 64 characters (X.520 ub-common-name); make it unique per generation of the CA. */
  readonly commonName: string;
  readonly validityMs: number;
  readonly nowMs: number;
  /** Default: a new RSA key of 3072 bits. */
  readonly key?: KeyPair;
}

export interface LeafRequest {
  readonly usage: "server" | "client";
  /** At most 64 characters; host names go into `dnsNames`. */
  readonly commonName: string;
  readonly organizations?: readonly string[];
  /** Subject alternative names. A server needs at least one: Go and Node ignore the common name. */
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
  readonly validityMs: number;
  readonly nowMs: number;
  readonly key?: KeyPair;
}

/** notBefore lies this far in the past, for clocks that run behind (Gardener's secrets manager does the same). */
export const CLOCK_SKEW_MS = 60_000;

/** Documented by node-forge but missing in its type declarations. */
const pki = forge.pki as typeof forge.pki & {
  getTBSCertificate(certificate: forge.pki.Certificate): forge.asn1.Asn1;
};

const MAX_COMMON_NAME_LENGTH = 64;
const DNS_NAME = /^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

/** A self-signed CA that may sign leaves but no further CA (RFC 5280 §4.2.1.9, pathLen 0). */
export async function issueAuthority(request: AuthorityRequest): Promise<CertifiedKey> {
  const key = request.key ?? (await createKeyPair());
  const subject = commonNameOnly(request.commonName);
  const certificate = draft(key, subject, subject, request);
  const identifier = certificate.generateSubjectKeyIdentifier().getBytes();
  certificate.setExtensions([
    { name: "basicConstraints", critical: true, cA: true, pathLenConstraint: 0 },
    {
      name: "keyUsage",
      critical: true,
      keyCertSign: true,
      cRLSign: true,
      digitalSignature: true,
      keyEncipherment: true,
    },
    { name: "subjectKeyIdentifier" },
    { name: "authorityKeyIdentifier", keyIdentifier: identifier },
  ]);
  return {
    certificatePem: signedPem(certificate, parsePrivateKey(key.privateKeyPem)),
    privateKeyPem: key.privateKeyPem,
  };
}

/**
 * A leaf certificate signed by `authority`, for exactly one usage (RFC 5280 §4.2.1.12).
 * @throws PkiError PKI_REQUEST_INVALID for names that no certificate can hold, PKI_KEY_INVALID and
 *   PKI_CERTIFICATE_INVALID for an authority that cannot be read, PKI_KEY_MISMATCH when its halves differ.
 */
export async function issueLeaf(authority: CertifiedKey, request: LeafRequest): Promise<CertifiedKey> {
  const altNames = subjectAltNames(request);
  const authorityKey = parsePrivateKey(authority.privateKeyPem);
  if (!parseCertificate(authority.certificatePem).checkPrivateKey(authorityKey)) {
    throw new PkiError({
      code: "PKI_KEY_MISMATCH",
      message: "the key of the authority does not belong to its certificate",
    });
  }
  const issuer = forge.pki.certificateFromPem(authority.certificatePem);
  const key = request.key ?? (await createKeyPair());
  const subject = [
    ...(request.organizations ?? []).map((value) => ({ name: "organizationName", value })),
    ...commonNameOnly(request.commonName),
  ];
  const certificate = draft(key, subject, issuer.subject.attributes, request);
  certificate.setExtensions([
    { name: "basicConstraints", critical: true, cA: false },
    { name: "keyUsage", critical: true, digitalSignature: true, keyEncipherment: true },
    { name: "extKeyUsage", serverAuth: request.usage === "server", clientAuth: request.usage === "client" },
    { name: "subjectKeyIdentifier" },
    { name: "authorityKeyIdentifier", keyIdentifier: issuer.generateSubjectKeyIdentifier().getBytes() },
    ...(altNames.length === 0 ? [] : [{ name: "subjectAltName", altNames }]),
  ]);
  return { certificatePem: signedPem(certificate, authorityKey), privateKeyPem: key.privateKeyPem };
}

function draft(
  key: KeyPair,
  subject: forge.pki.CertificateField[],
  issuer: forge.pki.CertificateField[],
  validity: { readonly validityMs: number; readonly nowMs: number },
): forge.pki.Certificate {
  if (!(validity.validityMs > 0)) throw invalid("the validity must be longer than zero");
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forge.pki.publicKeyFromPem(key.publicKeyPem);
  certificate.serialNumber = randomSerial();
  certificate.validity.notBefore = new Date(validity.nowMs - CLOCK_SKEW_MS);
  certificate.validity.notAfter = new Date(validity.nowMs + validity.validityMs);
  certificate.setSubject(subject);
  certificate.setIssuer(issuer);
  return certificate;
}

/** 127 random bits with the sign bit clear and no leading zero octet: positive and minimal in DER (RFC 5280 §4.1.2.2). */
function randomSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString("hex");
}

function commonNameOnly(commonName: string): forge.pki.CertificateField[] {
  if (commonName === "" || commonName.length > MAX_COMMON_NAME_LENGTH) {
    throw invalid(
      `the common name must have 1 to ${MAX_COMMON_NAME_LENGTH} characters, not ${commonName.length}`,
    );
  }
  return [{ name: "commonName", value: commonName }];
}

function subjectAltNames(request: LeafRequest): object[] {
  const dnsNames = request.dnsNames ?? [];
  const ipAddresses = request.ipAddresses ?? [];
  if (request.usage === "server" && dnsNames.length + ipAddresses.length === 0) {
    throw invalid("a server certificate needs a subject alternative name");
  }
  const badName = dnsNames.find((name) => name.length > 253 || !DNS_NAME.test(name));
  if (badName !== undefined) throw invalid(`not a DNS name: ${JSON.stringify(badName)}`);
  const badAddress = ipAddresses.find((address) => isIP(address) === 0);
  if (badAddress !== undefined) throw invalid(`not an IP address: ${JSON.stringify(badAddress)}`);
  return [...dnsNames.map((value) => ({ type: 2, value })), ...ipAddresses.map((ip) => ({ type: 7, ip }))];
}

/**
 * node-forge builds the certificate and node:crypto signs it: the same bytes as `certificate.sign`, without
 * some 100 ms of big-number arithmetic in JavaScript.
 */
function signedPem(certificate: forge.pki.Certificate, key: KeyObject): string {
  const algorithmOid = forge.pki.oids["sha256WithRSAEncryption"] as string;
  certificate.signatureOid = algorithmOid;
  certificate.siginfo.algorithmOid = algorithmOid;
  certificate.tbsCertificate = pki.getTBSCertificate(certificate);
  const toBeSigned = forge.asn1.toDer(certificate.tbsCertificate).getBytes();
  certificate.signature = sign("sha256", Buffer.from(toBeSigned, "latin1"), key).toString("latin1");
  return forge.pki.certificateToPem(certificate).replaceAll("\r\n", "\n");
}

function invalid(message: string): PkiError {
  return new PkiError({ code: "PKI_REQUEST_INVALID", message });
}
