// SPDX-License-Identifier: Apache-2.0
import { generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { publicKeyToProtobuf } from "@libp2p/crypto/keys";
import type { PrivateKey } from "@libp2p/interface";
import { encodeDer, encodeObjectId, Tag } from "./der.ts";
import { PUBLIC_KEY_EXTENSION, signedBytes } from "./public-key-extension.ts";

const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2";
const SERIAL_NUMBER = "2.5.4.5";
/** Nothing about time is said by the certificate of a key that lives as long as the process; a clock may still be wrong when it is made. */
const NOT_BEFORE = "700101000000Z";
const NOT_AFTER = "99991231235959Z";

export interface OwnCertificate {
  /** PEM. */
  readonly certificate: string;
  /** PEM. */
  readonly key: string;
}

/**
 * A self-signed certificate of a new P-256 key that carries the node's public key and its signature over the new one
 * (libp2p TLS specification, "libp2p Public Key Extension").
 */
export async function createOwnCertificate(host: PrivateKey): Promise<OwnCertificate> {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const keyInfo = publicKey.export({ type: "spki", format: "der" });
  const signedKey = encodeDer(
    Tag.SEQUENCE,
    encodeDer(Tag.OCTET_STRING, publicKeyToProtobuf(host.publicKey)),
    encodeDer(Tag.OCTET_STRING, await host.sign(signedBytes(keyInfo))),
  );
  const algorithm = encodeDer(Tag.SEQUENCE, encodeObjectId(ECDSA_WITH_SHA256));
  // The name must not be empty and means nothing.
  const name = encodeDer(
    Tag.SEQUENCE,
    encodeDer(
      Tag.SET,
      encodeDer(
        Tag.SEQUENCE,
        encodeObjectId(SERIAL_NUMBER),
        text(Tag.PRINTABLE_STRING, randomBytes(8).toString("hex")),
      ),
    ),
  );
  const content = encodeDer(
    Tag.SEQUENCE,
    encodeDer(Tag.EXPLICIT_0, encodeDer(Tag.INTEGER, Uint8Array.of(2))),
    // The first byte keeps the number positive and in its shortest form.
    encodeDer(Tag.INTEGER, Uint8Array.of(1), randomBytes(8)),
    algorithm,
    name,
    encodeDer(Tag.SEQUENCE, text(Tag.UTC_TIME, NOT_BEFORE), text(Tag.GENERALIZED_TIME, NOT_AFTER)),
    name,
    keyInfo,
    encodeDer(
      Tag.EXPLICIT_3,
      encodeDer(
        Tag.SEQUENCE,
        encodeDer(Tag.SEQUENCE, encodeObjectId(PUBLIC_KEY_EXTENSION), encodeDer(Tag.OCTET_STRING, signedKey)),
      ),
    ),
  );
  return {
    certificate: formatCertificate(content, algorithm, sign("sha256", content, privateKey)),
    key: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
  };
}

/** The certificate of a TBSCertificate that was signed, as PEM. */
export function formatCertificate(content: Uint8Array, algorithm: Uint8Array, signature: Uint8Array): string {
  const bits = encodeDer(Tag.BIT_STRING, Uint8Array.of(0), signature);
  const certificate = encodeDer(Tag.SEQUENCE, content, algorithm, bits);
  return `-----BEGIN CERTIFICATE-----\n${Buffer.from(certificate).toString("base64")}\n-----END CERTIFICATE-----\n`;
}

function text(tag: number, value: string): Uint8Array {
  return encodeDer(tag, Buffer.from(value));
}
