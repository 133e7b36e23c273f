// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { describe, it } from "node:test";
import fc from "fast-check";
import { ChaCha20Poly1305, newInstance } from "./chacha20-poly1305.ts";
import { loadSync } from "./proto-loader.ts";
import { digest } from "./sha256.ts";

/** The packages that are replaced, as @libp2p/noise finds them. */
const require = createRequire(import.meta.resolve("@libp2p/noise"));
const original = require("@chainsafe/as-chacha20poly1305") as {
  newInstance(): unknown;
  ChaCha20Poly1305: new (context: unknown) => ChaCha20Poly1305;
};

const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });
const anyMessage = fc.record({
  key: bytes(32),
  nonce: bytes(12),
  plaintext: fc.uint8Array({ maxLength: 2_000 }),
  associatedData: fc.uint8Array({ maxLength: 32 }),
});

describe("ChaCha20Poly1305 by OpenSSL", () => {
  const theirs = new original.ChaCha20Poly1305(original.newInstance());
  const ours = new ChaCha20Poly1305();

  it("seals as the WebAssembly implementation does, and each opens what the other sealed", () => {
    fc.assert(
      fc.property(anyMessage, ({ key, nonce, plaintext, associatedData }) => {
        const sealed = ours.seal(key, nonce, plaintext, associatedData);
        assert.deepEqual(
          Buffer.from(sealed),
          Buffer.from(theirs.seal(key, nonce, plaintext, associatedData)),
        );
        const opened = ours.open(key, nonce, sealed, associatedData);
        assert.deepEqual(Buffer.from(opened ?? "null"), Buffer.from(plaintext));
        assert.deepEqual(
          Buffer.from(theirs.open(key, nonce, sealed, associatedData) ?? "null"),
          Buffer.from(plaintext),
        );
      }),
    );
  });

  it("opens into a given target", () => {
    const [key, nonce] = [new Uint8Array(32), new Uint8Array(12)];
    const target = new Uint8Array(3);
    const opened = ours.open(key, nonce, ours.seal(key, nonce, Uint8Array.of(1, 2, 3)), undefined, target);
    assert.equal(opened, target);
    assert.deepEqual(target, Uint8Array.of(1, 2, 3));
  });

  it("gives null for a message that was changed in any place or cut", () => {
    fc.assert(
      fc.property(anyMessage, fc.nat(), fc.integer({ min: 1, max: 255 }), (message, place, change) => {
        const { key, nonce, plaintext, associatedData } = message;
        const sealed = ours.seal(key, nonce, plaintext, associatedData);
        const at = place % sealed.length;
        const bad = Uint8Array.from(sealed);
        bad[at] = (bad[at] ?? 0) ^ change;
        assert.equal(ours.open(key, nonce, bad, associatedData), null);
        assert.equal(ours.open(key, nonce, sealed.subarray(0, at), associatedData), null);
      }),
    );
  });

  it("refuses a key or nonce of a wrong length", () => {
    assert.throws(() => ours.seal(new Uint8Array(31), new Uint8Array(12), new Uint8Array(1)));
    assert.throws(() => ours.seal(new Uint8Array(32), new Uint8Array(0), new Uint8Array(1)));
  });

  it("needs no instance", () => assert.equal(newInstance(), undefined));
});

describe("the other shims", () => {
  it("hash as SHA-256 does", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (data) => {
        assert.deepEqual(Buffer.from(digest(data)), createHash("sha256").update(data).digest());
      }),
    );
  });

  it("load no proto file", () => assert.throws(() => loadSync(), /not loaded at run time/));
});
