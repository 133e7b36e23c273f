// SPDX-License-Identifier: Apache-2.0
import { createCipheriv, createDecipheriv } from "node:crypto";

/**
 * Stands for `@chainsafe/as-chacha20poly1305` in bundles: RFC 8439 by OpenSSL instead of WebAssembly, which
 * costs a compiled module and its memory per process. Same results, errors and lengths.
 */
const CIPHER = "chacha20-poly1305";
const TAG_BYTES = 16;

/** The WebAssembly instance of the original; there is none here. */
export function newInstance(): undefined {
  return undefined;
}

export class ChaCha20Poly1305 {
  /** @returns the ciphertext followed by the 16 bytes of the tag */
  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associatedData?: Uint8Array): Uint8Array {
    const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    if (associatedData !== undefined) cipher.setAAD(associatedData, { plaintextLength: plaintext.length });
    const sealed = new Uint8Array(plaintext.length + TAG_BYTES);
    sealed.set(cipher.update(plaintext));
    cipher.final();
    sealed.set(cipher.getAuthTag(), plaintext.length);
    return sealed;
  }

  /** @returns the plaintext, written into `target` when given; null when the tag does not fit */
  open(
    key: Uint8Array,
    nonce: Uint8Array,
    sealed: Uint8Array,
    associatedData?: Uint8Array,
    target?: Uint8Array,
  ): Uint8Array | null {
    if (sealed.length < TAG_BYTES) return null;
    const sizeBytes = sealed.length - TAG_BYTES;
    const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    if (associatedData !== undefined) decipher.setAAD(associatedData, { plaintextLength: sizeBytes });
    decipher.setAuthTag(sealed.subarray(sizeBytes));
    const plaintext = decipher.update(sealed.subarray(0, sizeBytes));
    try {
      decipher.final();
    } catch {
      return null;
    }
    if (target === undefined) return plaintext;
    target.set(plaintext);
    return target;
  }
}
