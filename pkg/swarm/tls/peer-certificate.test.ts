// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, it } from "node:test";
import { generateKeyPair } from "@libp2p/crypto/keys";
import { peerIdFromPrivateKey, peerIdFromString } from "@libp2p/peer-id";
import { asyncProperty, assert as holds, nat, uint8Array } from "fast-check";
import { SwarmError } from "../errors.ts";
import { encodeDer, readDerInside, readDerValues, Tag } from "./der.ts";
import { createOwnCertificate } from "./own-certificate.ts";
import { identifyPeer } from "./peer-certificate.ts";
import { PUBLIC_KEY_EXTENSION } from "./public-key-extension.ts";
import {
  extensionOf,
  extensionsOf,
  Field,
  type Forgery,
  forgeCertificate,
  keyExtensionOf,
} from "./testing.ts";

const NOW_MS = Date.UTC(2026, 10, 23);

function identify(pem: string | Buffer, expected?: string, nowMs = NOW_MS): Promise<string> {
  const options = { expected: expected === undefined ? undefined : peerIdFromString(expected), nowMs };
  return identifyPeer(new X509Certificate(pem), options).then(String);
}

/** The error is of this package and says why. */
const refusal =
  (why: RegExp) =>
  (err: unknown): boolean => {
    assert.ok(err instanceof SwarmError, String(err));
    assert.equal(err.code, "SWARM_CERTIFICATE_INVALID");
    assert.match(err.message, why);
    return true;
  };

/** The certificates of the libp2p TLS specification, in hexadecimal. */
const VECTORS = {
  Ed25519: {
    peerId: "12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv",
    hex: "308201ae30820156a0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c69627032702e696f310a300806035504051301313020170d3735303130313133303030305a180f34303936303130313133303030305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd601331c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea37c307a3078060a2b0601040183a25a0101046a3068042408011220a77f1d92fedb59dddaea5a1c4abd1ac2fbde7d7b879ed364501809923d7c11b90440d90d2769db992d5e6195dbb08e706b6651e024fda6cfb8846694a435519941cac215a8207792e42849cccc6cd8136c6e4bde92a58c5e08cfd4206eb5fe0bf909300a06082a8648ce3d0403020346003043021f50f6b6c52711a881778718238f650c9fb48943ae6ee6d28427dc6071ae55e702203625f116a7a454db9c56986c82a25682f7248ea1cb764d322ea983ed36a31b77",
  },
  secp256k1: {
    peerId: "16Uiu2HAkutTMoTzDw1tCvSRtu6YoixJwS46S1ZFxW8hSx9fWHiPs",
    hex: "308201ba3082015fa0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c69627032702e696f310a300806035504051301313020170d3735303130313133303030305a180f34303936303130313133303030305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd601331c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea38184308181307f060a2b0601040183a25a01010471306f0425080212210206dc6968726765b820f050263ececf7f71e4955892776c0970542efd689d2382044630440220145e15a991961f0d08cd15425bb95ec93f6ffa03c5a385eedc34ecf464c7a8ab022026b3109b8a3f40ef833169777eb2aa337cfb6282f188de0666d1bcec2a4690dd300a06082a8648ce3d0403020349003046022100e1a217eeef9ec9204b3f774a08b70849646b6a1e6b8b27f93dc00ed58545d9fe022100b00dafa549d0f03547878338c7b15e7502888f6d45db387e5ae6b5d46899cef0",
  },
} as const;
/** Two of it with a key of type ECDSA, which libp2p in JavaScript gives no peer id: a valid one and an invalid one. */
const ECDSA =
  "308201f63082019da0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c69627032702e696f310a300806035504051301313020170d3735303130313133303030305a180f34303936303130313133303030305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd601331c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea381c23081bf3081bc060a2b0601040183a25a01010481ad3081aa045f0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004bf30511f909414ebdd3242178fd290f093a551cf75c973155de0bb5a96fedf6cb5d52da7563e794b512f66e60c7f55ba8a3acf3dd72a801980d205e8a1ad29f2044730450220064ea8124774caf8f50e57f436aa62350ce652418c019df5d98a3ac666c9386a022100aa59d704a931b5f72fb9222cb6cc51f954d04a4e2e5450f8805fe8918f71eaae300a06082a8648ce3d04030203470030440220799395b0b6c1e940a7e4484705f610ab51ed376f19ff9d7c16757cfbf61b8d4302206205c03fbb0f95205c779be86581d3e31c01871ad5d1f3435bcf375cb0e5088a";
const INVALID =
  "308201f73082019da0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c69627032702e696f310a300806035504051301313020170d3735303130313133303030305a180f34303936303130313133303030305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd601331c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea381c23081bf3081bc060a2b0601040183a25a01010481ad3081aa045f0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004bf30511f909414ebdd3242178fd290f093a551cf75c973155de0bb5a96fedf6cb5d52da7563e794b512f66e60c7f55ba8a3acf3dd72a801980d205e8a1ad29f204473045022100bb6e03577b7cc7a3cd1558df0da2b117dfdcc0399bc2504ebe7de6f65cade72802206de96e2a5be9b6202adba24ee0362e490641ac45c240db71fe955f2c5cf8df6e300a06082a8648ce3d0403020348003045022100e847f267f43717358f850355bdcabbefb2cfbf8a3c043b203a14788a092fe8db022027c1d04a2d41fd6b57a7e8b3989e470325de4406e52e084e34a3fd56eef0d0df";

describe("the certificate of a peer", () => {
  for (const [type, { peerId, hex }] of Object.entries(VECTORS))
    it(`names the peer in the specification's certificate with a key of type ${type}`, async () => {
      assert.equal(await identify(Buffer.from(hex, "hex")), peerId);
      assert.equal(await identify(Buffer.from(hex, "hex"), peerId), peerId);
    });

  it("is refused when the key is of type ECDSA, as the specification's other two are, of which one is invalid", async () => {
    for (const hex of [ECDSA, INVALID])
      await assert.rejects(identify(Buffer.from(hex, "hex")), refusal(/of a type other than/));
  });

  for (const type of ["Ed25519", "secp256k1", "RSA"] as const)
    it(`names a peer whose key is of type ${type}, made here`, async () => {
      const host =
        type === "RSA" ? await generateKeyPair(type, 2048) : await generateKeyPair(type as "Ed25519");
      const { certificate } = await createOwnCertificate(host);
      assert.equal(await identify(certificate), peerIdFromPrivateKey(host).toString());
    });

  it("is refused when another peer was dialled", async () => {
    const { certificate } = await forgeCertificate();
    const other = VECTORS.Ed25519.peerId;
    await assert.rejects(
      identify(certificate, other),
      refusal(new RegExp(`it is that of 12D3.*, not of ${other}`)),
    );
  });

  it("is refused before and after its time", async () => {
    const time = (text: string): Uint8Array => encodeDer(Tag.UTC_TIME, Buffer.from(text));
    const validity = encodeDer(Tag.SEQUENCE, time("260101000000Z"), time("270101000000Z"));
    const { certificate } = await forgeCertificate({
      fields: (fields) => fields.with(Field.VALIDITY, validity),
    });
    await identify(certificate);
    await assert.rejects(
      identify(certificate, undefined, Date.UTC(2025, 11, 31)),
      refusal(/valid from .* not now/),
    );
    await assert.rejects(
      identify(certificate, undefined, Date.UTC(2027, 0, 2)),
      refusal(/valid from .* not now/),
    );
  });

  it("is refused when there is none, or more than one", async () => {
    const options = { expected: undefined, nowMs: NOW_MS };
    await assert.rejects(identifyPeer(undefined, options), refusal(/sent none/));
    const certificate = new X509Certificate((await forgeCertificate()).certificate);
    const chain = Object.defineProperty(certificate, "issuerCertificate", { value: certificate });
    await assert.rejects(identifyPeer(chain, options), refusal(/more than one/));
  });

  const another = forgeCertificate();
  const cases: readonly (readonly [string, RegExp, () => Promise<Forgery>])[] = [
    ["is signed by another key", /not signed by itself/, async () => ({ signer: (await another).key })],
    [
      "is signed with SHA-1",
      /not accepted/,
      async () => ({ algorithm: { id: "1.2.840.10045.4.1", digest: "sha1" } }),
    ],
    [
      "names two signature algorithms",
      /two signature algorithms/,
      async () => ({
        fields: (fields) => fields.with(Field.SIGNATURE, encodeDer(Tag.SEQUENCE, Uint8Array.of(6, 1, 0x2a))),
      }),
    ],
    [
      "has another issuer than subject",
      /not signed by itself/,
      async () => ({ fields: (fields) => fields.with(Field.ISSUER, encodeDer(Tag.SEQUENCE)) }),
    ],
    ["is of version 1", /version 3/, async () => ({ fields: (fields) => fields.slice(1, -1) })],
    ["has no extensions", /version 3/, async () => ({ fields: (fields) => fields.slice(0, -1) })],
    [
      "has an identifier of its subject beside the name",
      /version 3/,
      async () => ({ fields: (fields) => fields.toSpliced(-1, 0, encodeDer(0x82, Uint8Array.of(0, 1))) }),
    ],
    [
      "has extensions, but not the one with the peer's key",
      /0 extensions with the peer's key/,
      async () => ({
        fields: (fields) =>
          fields.with(Field.EXTENSIONS, extensionsOf(extensionOf("1.2.3", new Uint8Array(2)))),
      }),
    ],
    [
      "has the peer's key twice",
      /2 extensions with the peer's key/,
      async () => ({
        fields: (fields) => {
          const { extension } = keyExtensionOf(fields);
          return fields.with(Field.EXTENSIONS, extensionsOf(extension, extension));
        },
      }),
    ],
    [
      "has a critical extension that nobody here knows",
      /critical and unknown/,
      async () => ({
        fields: (fields) =>
          fields.with(
            Field.EXTENSIONS,
            extensionsOf(
              keyExtensionOf(fields).extension,
              extensionOf("1.2.3", new Uint8Array(2), "critical"),
            ),
          ),
      }),
    ],
    [
      "has a key that is none",
      /key cannot be read/,
      async () => withSignedKey((_, signature) => [Buffer.from("no key"), signature]),
    ],
    [
      "has the key of a victim",
      /did not sign it/,
      async () => {
        const victim = await keyExtension(await another);
        return withSignedKey((_, signature) => [victim.key, signature]);
      },
    ],
    [
      "has the key and the signature of a victim's certificate",
      /did not sign it/,
      async () => {
        const victim = await keyExtension(await another);
        return withSignedKey(() => [victim.key, victim.signature]);
      },
    ],
    [
      "has a signature with one bit changed",
      /did not sign it/,
      async () =>
        withSignedKey((key, signature) => [
          key,
          Uint8Array.from(signature, (byte, at) => (at === 9 ? byte ^ 1 : byte)),
        ]),
    ],
    [
      "has a signature and more behind it",
      /not a key and a signature/,
      async () => withSignedKey((key, signature) => [key, signature, Uint8Array.of(1)]),
    ],
    ["has a signature that is empty", /sign/, async () => withSignedKey((key) => [key, new Uint8Array()])],
    [
      "is larger than any honest one",
      /too many/,
      async () => ({
        fields: (fields) =>
          fields.with(
            Field.EXTENSIONS,
            extensionsOf(keyExtensionOf(fields).extension, extensionOf("1.2.3", new Uint8Array(9_000))),
          ),
      }),
    ],
    [
      "describes its curve instead of naming it",
      /described, not named/,
      async () => ({
        fields: (fields) =>
          fields.with(
            Field.KEY,
            encodeDer(
              Tag.SEQUENCE,
              encodeDer(Tag.SEQUENCE, Uint8Array.of(6, 1, 0x2a), encodeDer(Tag.SEQUENCE)),
              encodeDer(Tag.BIT_STRING, Uint8Array.of(0)),
            ),
          ),
      }),
    ],
  ];
  for (const [what, why, forgery] of cases)
    it(`is refused when it ${what}`, async () => {
      const { certificate } = await forgeCertificate(await forgery());
      await assert.rejects(identify(certificate), refusal(why));
    });

  it("may have the extension marked as critical, and others that are not", async () => {
    const host = await generateKeyPair("Ed25519");
    const { certificate } = await forgeCertificate({
      host,
      fields: (fields) => {
        const { key, signature } = keyExtensionOf(fields);
        const value = encodeDer(
          Tag.SEQUENCE,
          encodeDer(Tag.OCTET_STRING, key),
          encodeDer(Tag.OCTET_STRING, signature),
        );
        return fields.with(
          Field.EXTENSIONS,
          extensionsOf(
            extensionOf("1.2.3", new Uint8Array(2)),
            extensionOf(PUBLIC_KEY_EXTENSION, value, "critical"),
          ),
        );
      },
    });
    assert.equal(await identify(certificate), peerIdFromPrivateKey(host).toString());
  });

  it("is refused with one byte changed anywhere", async () => {
    const raw = Buffer.from(VECTORS.Ed25519.hex, "hex");
    await holds(
      asyncProperty(nat(raw.length - 1), nat(254), async (at, change) => {
        const changed = Buffer.from(raw);
        changed[at] = (changed[at] as number) ^ (change + 1);
        let certificate: X509Certificate;
        try {
          certificate = new X509Certificate(changed);
        } catch {
          return; // OpenSSL refuses it during the handshake
        }
        await assert.rejects(identifyPeer(certificate, { expected: undefined, nowMs: NOW_MS }), refusal(/./));
      }),
      { numRuns: 600 },
    );
  });

  it("is refused when any bytes stand where the key and the signature should", async () => {
    await holds(
      asyncProperty(uint8Array({ maxLength: 120 }), async (value) => {
        const { certificate } = await forgeCertificate({
          fields: (fields) =>
            fields.with(Field.EXTENSIONS, extensionsOf(extensionOf(PUBLIC_KEY_EXTENSION, value))),
        });
        await assert.rejects(identify(certificate), refusal(/./));
      }),
    );
  });
});

function withSignedKey(change: (key: Uint8Array, signature: Uint8Array) => readonly Uint8Array[]): Forgery {
  return {
    fields: (fields) => {
      const { key, signature } = keyExtensionOf(fields);
      const strings = change(key, signature).map((each) => encodeDer(Tag.OCTET_STRING, each));
      return fields.with(
        Field.EXTENSIONS,
        extensionsOf(extensionOf(PUBLIC_KEY_EXTENSION, encodeDer(Tag.SEQUENCE, ...strings))),
      );
    },
  };
}

async function keyExtension(certificate: {
  readonly certificate: string;
}): Promise<ReturnType<typeof keyExtensionOf>> {
  const { raw } = new X509Certificate(certificate.certificate);
  const [content] = readDerInside(raw, Tag.SEQUENCE);
  return keyExtensionOf(readDerValues(content?.content ?? new Uint8Array()).map(({ encoded }) => encoded));
}
