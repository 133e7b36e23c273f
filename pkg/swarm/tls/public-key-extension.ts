// SPDX-License-Identifier: Apache-2.0
/** The X.509 extension by which a certificate names the node it belongs to (libp2p TLS specification). */
export const PUBLIC_KEY_EXTENSION = "1.3.6.1.4.1.53594.1.1";

const PREFIX = Buffer.from("libp2p-tls-handshake:");

/** What the node's own key signs: the key of the certificate, as SubjectPublicKeyInfo in DER. */
export function signedBytes(keyInfo: Uint8Array): Uint8Array {
  return Buffer.concat([PREFIX, keyInfo]);
}
