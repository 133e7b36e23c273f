// SPDX-License-Identifier: Apache-2.0
import type { X509Certificate } from "node:crypto";
import { publicKeyFromProtobuf } from "@libp2p/crypto/keys";
import type { PeerId, PublicKey } from "@libp2p/interface";
import { peerIdFromPublicKey } from "@libp2p/peer-id";
import { SwarmError } from "../errors.ts";
import { type DerValue, encodeObjectId, readDerInside, readDerValues, Tag } from "./der.ts";
import { PUBLIC_KEY_EXTENSION, signedBytes } from "./public-key-extension.ts";

/** The largest, of a node with an RSA key of 8192 bits, takes less than half of it. */
const MAX_CERTIFICATE_BYTES = 8 * 1024;
/** ECDSA and RSA (PKCS #1) with SHA-256, SHA-384 or SHA-512, and Ed25519: no hash that can be made to collide. */
const SIGNATURES: ReadonlySet<string> = new Set([
  "1.2.840.10045.4.3.2",
  "1.2.840.10045.4.3.3",
  "1.2.840.10045.4.3.4",
  "1.2.840.113549.1.1.11",
  "1.2.840.113549.1.1.12",
  "1.2.840.113549.1.1.13",
  "1.3.101.112",
]);
/** Of TBSCertificate: version, serial number, signature, issuer, validity, subject, key and extensions, and nothing else. */
const FIELD_TAGS = [
  Tag.EXPLICIT_0,
  Tag.INTEGER,
  Tag.SEQUENCE,
  Tag.SEQUENCE,
  Tag.SEQUENCE,
  Tag.SEQUENCE,
  Tag.SEQUENCE,
  Tag.EXPLICIT_3,
].join();
const EXTENSION_ID = encodeObjectId(PUBLIC_KEY_EXTENSION);

/**
 * Judges the certificate that a peer proved to have the key of, and tells which node that is.
 *
 * @param expected who was dialled; undefined when that is to be learned
 * @throws SwarmError SWARM_CERTIFICATE_INVALID when the libp2p TLS specification forbids to go on, or another node than
 * the expected one has answered
 */
export async function identifyPeer(
  certificate: X509Certificate | undefined,
  options: { readonly expected: PeerId | undefined; readonly nowMs: number },
): Promise<PeerId> {
  if (certificate === undefined) throw invalid("the peer sent none");
  if (certificate.issuerCertificate !== undefined) throw invalid("the peer sent more than one");
  const { raw } = certificate;
  if (raw.length > MAX_CERTIFICATE_BYTES) throw invalid(`${raw.length} bytes are too many`);
  const [, , , issuer, , subject, keyInfo, extensions] = readContent(raw);
  const [fromMs, toMs] = [certificate.validFromDate.getTime(), certificate.validToDate.getTime()];
  if (!(fromMs <= options.nowMs && options.nowMs <= toMs))
    throw invalid(`valid from ${certificate.validFrom} to ${certificate.validTo}, not now`);
  if (!SIGNATURES.has(certificate.signatureAlgorithmOid ?? ""))
    throw invalid(`signed with ${certificate.signatureAlgorithm}, which is not accepted`);
  if (!isSignedByItself(certificate, { issuer, subject })) throw invalid("not signed by itself");
  const { peer, publicKey, signature } = readSignedKey(extensions);
  let isSigned: boolean;
  try {
    isSigned = await publicKey.verify(signedBytes(keyInfo.encoded), signature);
  } catch (cause) {
    throw invalid("the signature of the peer's key cannot be read", cause);
  }
  if (!isSigned) throw invalid("the peer's key did not sign it");
  if (options.expected?.equals(peer) === false)
    throw invalid(`it is that of ${peer.toString()}, not of ${options.expected.toString()}`);
  return peer;
}

type Fields = readonly [
  version: DerValue,
  serialNumber: DerValue,
  signature: DerValue,
  issuer: DerValue,
  validity: DerValue,
  subject: DerValue,
  keyInfo: DerValue,
  extensions: DerValue,
];

/** Opens what the certificate is signed for, a TBSCertificate, in the form that the specification leaves. */
function readContent(raw: Uint8Array): Fields {
  const [content, algorithm] = readDerInside(raw, Tag.SEQUENCE);
  const fields = content?.tag === Tag.SEQUENCE ? readDerValues(content.content) : [];
  if (fields.map(({ tag }) => tag).join() !== FIELD_TAGS)
    throw invalid("not the fields of an X.509 version 3 certificate");
  const [, , signature, , , , keyInfo] = fields as unknown as Fields;
  if (algorithm === undefined || !equal(signature, algorithm)) throw invalid("two signature algorithms");
  const [keyAlgorithm] = readDerValues(keyInfo.content);
  const [, parameters] = readDerInside(keyAlgorithm?.encoded ?? new Uint8Array(), Tag.SEQUENCE);
  if (parameters?.tag === Tag.SEQUENCE) throw invalid("a curve that is described, not named");
  return fields as unknown as Fields;
}

/** The peer's key and its signature, from the one extension that says something here. */
function readSignedKey(extensions: DerValue): {
  readonly peer: PeerId;
  readonly publicKey: PublicKey;
  readonly signature: Uint8Array;
} {
  const found: Uint8Array[] = [];
  for (const { encoded } of readDerInside(extensions.content, Tag.SEQUENCE)) {
    const [id, ...rest] = readDerInside(encoded, Tag.SEQUENCE);
    const value = rest.at(-1);
    if (id?.tag !== Tag.OBJECT_ID || value?.tag !== Tag.OCTET_STRING || rest.length > 2)
      throw invalid("an extension without id or value");
    if (Buffer.compare(id.encoded, EXTENSION_ID) === 0) found.push(value.content);
    else if (rest.length === 2) throw invalid("an extension that is critical and unknown");
  }
  const [signedKey, ...others] = found;
  if (signedKey === undefined || others.length > 0)
    throw invalid(`${found.length} extensions with the peer's key, not 1`);
  const [key, signature, ...more] = readDerInside(signedKey, Tag.SEQUENCE);
  if (key?.tag !== Tag.OCTET_STRING || signature?.tag !== Tag.OCTET_STRING || more.length > 0)
    throw invalid("its extension is not a key and a signature");
  try {
    const publicKey = publicKeyFromProtobuf(key.content);
    return { peer: peerIdFromPublicKey(publicKey), publicKey, signature: signature.content };
  } catch (cause) {
    throw invalid(
      "the peer's key cannot be read, or is of a type other than Ed25519, RSA and secp256k1",
      cause,
    );
  }
}

function isSignedByItself(
  certificate: X509Certificate,
  { issuer, subject }: { readonly issuer: DerValue; readonly subject: DerValue },
): boolean {
  if (!equal(issuer, subject)) return false;
  try {
    return certificate.verify(certificate.publicKey);
  } catch {
    return false; // a key that is none, or of another kind than the signature
  }
}

function equal(one: DerValue, other: DerValue): boolean {
  return Buffer.compare(one.encoded, other.encoded) === 0;
}

function invalid(message: string, cause?: unknown): SwarmError {
  return new SwarmError({ code: "SWARM_CERTIFICATE_INVALID", message: `certificate: ${message}`, cause });
}
