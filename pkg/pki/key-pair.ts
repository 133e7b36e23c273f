// SPDX-License-Identifier: Apache-2.0
import { createPrivateKey, createPublicKey, generateKeyPair, type KeyObject } from "node:crypto";
import { promisify } from "node:util";
import { PkiError } from "./errors.ts";

const generate = promisify(generateKeyPair);

/** RSA, as Gardener's secrets manager makes them. */
export const DEFAULT_KEY_BITS = 3072;

export interface KeyPair {
  /** `-----BEGIN RSA PRIVATE KEY-----` (PKCS#1), the form Gardener's own secrets have. */
  readonly privateKeyPem: string;
  /** `-----BEGIN PUBLIC KEY-----` (SubjectPublicKeyInfo). */
  readonly publicKeyPem: string;
}

/** A new RSA key pair, made in the thread pool: the event loop stays free during the 0.1-2 s it takes. */
export async function createKeyPair(options: { readonly bits?: number } = {}): Promise<KeyPair> {
  const pair = await generate("rsa", { modulusLength: options.bits ?? DEFAULT_KEY_BITS });
  return {
    privateKeyPem: pair.privateKey.export({ type: "pkcs1", format: "pem" }) as string,
    publicKeyPem: pair.publicKey.export({ type: "spki", format: "pem" }) as string,
  };
}

/**
 * Reads an unencrypted private key (PKCS#1, PKCS#8 or SEC1 PEM).
 * @throws PkiError PKI_KEY_INVALID; the text of the key never becomes part of the message.
 */
export function parsePrivateKey(pem: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch {
    throw new PkiError({ code: "PKI_KEY_INVALID", message: "not an unencrypted private key in PEM form" });
  }
}

/** The public half of a private key. @throws PkiError PKI_KEY_INVALID */
export function publicKeyOf(privateKeyPem: string): string {
  return createPublicKey(parsePrivateKey(privateKeyPem)).export({ type: "spki", format: "pem" }) as string;
}
